// `adamas bench`: time of a decode step on random data, against the library's own dense decode, the memory's
// measured bandwidth and, where given, dense times of other libraries.
#include <memory>
#include <optional>

#include <adamas/adamas.hpp>

#include "codegen/format.hpp"
#include "tools/bandwidth.hpp"
#include "tools/bench_measure.hpp"
#include "tools/bench_report.hpp"
#include "tools/bench_shapes.hpp"
#include "tools/cli.hpp"
#include "tools/host_cost.hpp"

namespace adamas::tools {
namespace {

struct Options {
  std::string device = "auto", spec, tuning, preset, shapes, budgets, keys = "random", dense_file;
  std::optional<double> memory_gb;
  double seconds = BenchOptions().seconds;
  bool scatter_pages = false, encode = false, crossover = false, print_shapes = false, json = false;
};

/// What to measure: the preset's, with what was given in place of it.
struct Work {
  std::vector<codegen::Spec> specs;  // one a budget
  std::vector<BenchShape> shapes;
};

Work work_of(const Options& options) {
  BenchPreset chosen{.name = "", .spec = "", .shapes = "batch=1 kv_heads=8 tokens=32768", .budgets = ""};
  if (!options.preset.empty()) chosen = bench_preset(options.preset);
  const std::string spec = merge_spec(chosen.spec, options.spec);
  Work work;
  work.shapes = parse_shapes(options.shapes.empty() ? chosen.shapes : options.shapes);
  // A budget in --spec is one budget, not the preset's list.
  const std::string listed = names_key(options.spec, "budget") ? "" : chosen.budgets;
  const std::string budgets = options.budgets.empty() ? listed : options.budgets;
  if (budgets.empty()) {
    work.specs.push_back(codegen::Spec::parse(spec));
    return work;
  }
  for (const std::int64_t budget : parse_budgets(budgets))
    work.specs.push_back(codegen::Spec::parse(merge_spec(spec, fmt::format("budget={}", budget))));
  return work;
}

int print_shapes(const Work& work) {
  for (const BenchShape& shape : work.shapes)
    print_json(json_of(shape, work.specs.front()));
  return 0;
}

void print_header(const BenchMachine& machine, const Work& work) {
  const auto info = machine.context.info();
  fmt::print("device  {} ({}), read bandwidth {:.1f} GB/s\nspec    {}\n\n", info.device, info.device_name,
             machine.read_gbps, work.specs.front().text());
}

std::string described(const BenchShape& shape, const codegen::Spec& spec) {
  return fmt::format("batch {} kv_heads {} tokens {} budget {}", shape.batch(), shape.kv_heads,
                     shape.tokens_text(), spec.budget);
}

void run_crossovers(const Work& work, const BenchMachine& machine, const BenchOptions& how, bool json,
                    Progress& progress) {
  for (const codegen::Spec& spec : work.specs) {
    for (const BenchShape& shape : work.shapes) {
      progress.say("crossover: " + described(shape, spec));
      const Crossover crossover = find_crossover(machine, spec, shape, how);
      progress.say("");
      if (json) {
        print_json(json_of(crossover, spec, shape, machine));
      } else {
        print_crossover(crossover, spec, shape);
      }
    }
  }
}

void run_shapes(const Work& work, const BenchMachine& machine, const BenchOptions& how,
                const DenseReferences& references, bool json, Progress& progress) {
  std::vector<ReportRow> rows;
  for (const BenchShape& shape : work.shapes) {
    for (const codegen::Spec& spec : work.specs) {
      progress.say(described(shape, spec));
      BenchRow row = measure_shape(machine, spec, shape, how);
      const auto reference = references.find(row, machine.read_gbps);
      if (json) {
        print_json(json_of(row, machine, reference));
      } else {
        rows.push_back({std::move(row), reference});
      }
    }
  }
  progress.say("");
  if (!json) print_report(rows, machine);
}

int run(const Options& options) {
  const Work work = work_of(options);
  if (options.print_shapes) return print_shapes(work);
  const BenchOptions how{.tuning = options.tuning,
                         .keys = key_pattern(options.keys),
                         .scattered = options.scatter_pages,
                         .encode = options.encode,
                         .seconds = options.seconds};
  const auto references =
      options.dense_file.empty() ? DenseReferences() : DenseReferences::read(options.dense_file);

  Progress progress(options.json);
  const Context context(options.device.c_str());
  const auto device = runtime::open_device(context.info().device, 0);
  progress.say("measuring read bandwidth");
  const bool cuda = device->generator().language() == "cuda";
  const auto stream = device->make_stream();
  const BenchMachine machine{.context = context,
                             .device = *device,
                             .graphs = cuda,
                             .read_gbps = measure_bandwidth(*device),
                             .cold_bytes = cold_bytes(*device),
                             .memory_bytes = 1e9 * options.memory_gb.value_or(cuda ? 20 : 2),
                             .launch_ns = cuda ? launch_nanoseconds(*device, stream->get()) : 0};
  if (!options.json) print_header(machine, work);
  if (options.crossover) {
    run_crossovers(work, machine, how, options.json, progress);
  } else {
    run_shapes(work, machine, how, references, options.json, progress);
  }
  return 0;
}

}  // namespace

void add_bench(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("bench", "Time of a decode step on random data, sparse against dense");
  command->add_option("--device", options->device, "auto, cpu or cuda:N")->capture_default_str();
  command->add_option("--preset", options->preset,
                      "paper (32 K/V heads, 8K to 128K) or serving (8 K/V heads of 4 query heads, batches): "
                      "Spec, shapes and budgets, each replaced by what is given besides");
  command->add_option("--spec", options->spec, "Spec keys; what is left out takes its default");
  command->add_option("--tuning", options->tuning, "Tuning keys");
  command->add_option("--shapes", options->shapes,
                      "lists of batch=, kv_heads=, tokens=; their product is run. tokens=1024..65536 makes "
                      "ragged batches, lengths log-uniform between the two. Several groups: separated by ; "
                      "(default: batch=1 kv_heads=8 tokens=32768)");
  command->add_option("--budgets", options->budgets, "a list: each shape is run with each budget");
  command->add_flag("--crossover", options->crossover,
                    "in place of the table: from which length on selection beats attending to all tokens, "
                    "and the dense_below that follows");
  command->add_flag("--encode", options->encode,
                    "also time encoding the whole cache, one new token of each sequence, and a decode step "
                    "that encodes these");
  command
      ->add_option("--dense", options->dense_file,
                   "dense times to compare with: JSON lines of tools/bench_torch.py")
      ->type_name("FILE");
  command
      ->add_option("--keys", options->keys,
                   "random; bursts (runs of equal tokens) or ties (all equal): hard cases of the selection")
      ->capture_default_str();
  command->add_flag("--scatter-pages", options->scatter_pages,
                    "block tables in random order, as in an engine that has been running for a while");
  command
      ->add_option("--memory", options->memory_gb, "GB that the caches may take (default: 20, on the CPU 2)")
      ->check(CLI::PositiveNumber);
  command->add_option("--seconds", options->seconds, "to spend on each figure")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_flag("--print-shapes", options->print_shapes,
                    "only the shapes, as JSON lines for tools/bench_torch.py; needs no device");
  command->add_flag("--json", options->json, "one JSON object a line");
  command->footer(
      "Example:\n  adamas bench --device cpu --spec \"group=4 budget=256\" --shapes \"batch=1,16 kv_heads=8 "
      "tokens=32768\"\n  adamas bench --device cuda:0 --preset serving --encode --dense dense.jsonl");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace adamas::tools
