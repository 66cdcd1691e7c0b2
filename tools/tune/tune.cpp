// `adamas tune`: finds the fastest Tunings for Specs and shapes on this machine, and keeps them where
// contexts look.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <span>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/device/cpu_count.hpp"
#include "runtime/dispatch/units.hpp"
#include "tools/bench_shapes.hpp"
#include "tools/cli.hpp"
#include "tools/kernel_request.hpp"
#include "tools/model_config.hpp"
#include "tools/text.hpp"
#include "tools/tune/report.hpp"
#include "tools/tune/tune_files.hpp"
#include "tools/tune/view.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using runtime::TunedShape;
using runtime::TuningFile;
using Clock = std::chrono::steady_clock;

struct TuneOptions {
  std::string device = "auto", target, spec, shapes = "batch=1,16 kv_heads=8 tokens=8192,32768,131072", model,
              out, report;
  int tensor_parallel = 1, jobs = 0;
  double seconds = 180;
  std::optional<double> memory_gb;
  bool dry_run = false, fresh = false, exhaustive = false, json = false;
};

std::atomic<bool> interrupted{false};

/// Shows what happens, and keeps first results for a run that goes on after this one.
class JournalingObserver : public TuneObserver {
 public:
  JournalingObserver(TuneView& view, Journal& journal) : view_(view), journal_(journal) {}

  void space(const TunedShape& shape, const codegen::TuningSpace& space) override {
    view_.space(shape, space);
  }
  void compiled(std::size_t done, std::size_t all) override { view_.compiled(done, all); }
  void trial(const ShapeRecord& so_far, std::size_t candidate, bool dense) override {
    view_.trial(so_far, candidate, dense);
    const Trial& trial = so_far.trials[candidate];
    if (dense || (trial.passes == 0 && trial.state != Trial::State::failed)) return;
    if (seen_.insert(candidate).second) journal_.add(so_far.shape, so_far.tunings[candidate], trial);
  }

 private:
  TuneView& view_;
  Journal& journal_;
  std::set<std::size_t> seen_;  // candidates that the journal has
};

/// While it lives, Ctrl-C ends the search and not the program; a second one ends both.
class InterruptGuard {
 public:
  InterruptGuard() {
    struct sigaction action{};
    action.sa_handler = [](int) { interrupted = true; };
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }

 private:
  struct sigaction before_{};
};

/// A Spec and the shapes to tune it for.
struct TuneWork {
  codegen::Spec spec;
  std::vector<TunedShape> shapes;
};

std::vector<TunedShape> tuned_shapes(const std::string& text) {
  std::vector<TunedShape> shapes;
  for (const BenchShape& shape : parse_shapes(text)) {
    if (shape.ragged)
      throw Error(ADAMAS_INVALID_ARGUMENT, "shapes", shape.tokens_text(),
                  "must be one length: launches are sized by the longest row", "give the longest");
    shapes.push_back({.batch = shape.batch(), .kv_heads = shape.kv_heads, .tokens = shape.capacity});
  }
  return shapes;
}

std::vector<TuneWork> work_of(const TuneOptions& options) {
  const std::vector<TunedShape> shapes = tuned_shapes(options.shapes);
  if (options.model.empty()) return {{codegen::Spec::parse(options.spec), shapes}};
  const auto config = nlohmann::json::parse(read_text("model", options.model), nullptr, false);
  if (config.is_discarded())
    throw Error(ADAMAS_IO_ERROR, "model", options.model, "must be JSON: a model's config.json");
  std::vector<TuneWork> work;
  for (const AttentionShape& layers : attention_shapes(options.model, config, options.tensor_parallel, "")) {
    TuneWork item{codegen::Spec::parse(merge_spec(layers.spec, options.spec)), shapes};
    for (TunedShape& shape : item.shapes)
      shape.kv_heads = layers.kv_heads;
    std::ranges::sort(item.shapes);
    item.shapes.erase(std::ranges::unique(item.shapes).begin(), item.shapes.end());
    work.push_back(std::move(item));
  }
  return work;
}

int dry_run(const TuneOptions& options, const std::vector<TuneWork>& work, const std::string& target,
            int processors) {
  for (const TuneWork& item : work) {
    for (const TunedShape& shape : item.shapes) {
      const auto space = codegen::tuning_space(item.spec, target,
                                               {.batch = shape.batch,
                                                .kv_heads = shape.kv_heads,
                                                .max_tokens = shape.tokens,
                                                .processors = processors});
      const codegen::Tuning& base = space.decode.front();
      if (options.json) {
        nlohmann::ordered_json tried = nlohmann::ordered_json::array(), excluded = tried;
        for (const codegen::Tuning& tuning : space.decode)
          tried.push_back(tuning.text());
        for (const auto& [tuning, why] : space.excluded)
          excluded.push_back({{"tuning", tuning}, {"why", why}});
        print_json({{"spec", item.spec.text()},
                    {"target", target},
                    {"batch", shape.batch},
                    {"kv_heads", shape.kv_heads},
                    {"tokens", shape.tokens},
                    {"candidates", tried},
                    {"excluded", excluded}});
        continue;
      }
      fmt::print("{} for {}\nbatch={} kv_heads={} tokens={}: {} candidates\n", short_spec(item.spec.text()),
                 short_target(target), shape.batch, shape.kv_heads, shape.tokens, space.decode.size());
      fmt::print("  {}  (the default)\n", base.text());
      for (const codegen::Tuning& tuning : std::span(space.decode).subspan(1))
        fmt::print("  {}\n", codegen::tuning_difference(tuning, base));
      fmt::print("{} excluded\n", space.excluded.size());
      for (const auto& [tuning, why] : space.excluded)
        fmt::print("  {}: {}\n", tuning.empty() ? "the default" : tuning, why);
      fmt::print("\n");
    }
  }
  return 0;
}

/// Of the parameters of a target: those of any shape.
std::vector<codegen::TuningParameter> parameters_of(const codegen::Spec& spec, const std::string& target) {
  return codegen::tuning_space(spec, target, {}).parameters;
}

int run(const TuneOptions& options) {
  const std::vector<TuneWork> work = work_of(options);
  if (options.dry_run && !options.target.empty())
    return dry_run(options, work, runtime::resolve_target(options.target), 0);

  const Context context(options.device.c_str());
  const auto info = context.info();
  const auto device = runtime::open_device(info.device, 0);
  const std::string target = device->targets().front();
  const bool cuda = device->generator().language() == "cuda";
  if (options.dry_run) return dry_run(options, work, target, device->processors());

  const std::string out = options.out.empty() ? tuning_file_path() : options.out;
  // Refused now, not after minutes of measuring.
  const TuningFile before = std::filesystem::exists(out) ? TuningFile::read(out) : TuningFile();
  before.write(out);
  TuningFile file = before;
  if (options.fresh) std::filesystem::remove(out + ".journal");

  std::size_t shapes_left = 0;
  for (const TuneWork& item : work)
    shapes_left += item.shapes.size();
  const InterruptGuard guard;
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(options.seconds));
  std::vector<TunedSpec> report;
  std::size_t found = 0;
  for (const TuneWork& item : work) {
    const TuneTask task{
        .device = info.device,
        .program = std::filesystem::read_symlink("/proc/self/exe"),
        .spec = item.spec,
        .target = target,
        .processors = device->processors(),
        .memory_bytes = cache_memory(options.memory_gb, target),
        .jobs = options.jobs > 0 ? options.jobs : std::max(1, runtime::usable_cpus() - (cuda ? 1 : 0)),
        .exhaustive = options.exhaustive};
    TunedSpec tuned{
        .subject = subject_of(task, *device), .parameters = parameters_of(item.spec, target), .records = {}};
    Journal journal(out + ".journal", tuned.subject);
    const auto style = options.json                 ? TuneView::Style::json
                       : isatty(STDOUT_FILENO) == 1 ? TuneView::Style::table
                                                    : TuneView::Style::lines;
    TuneView view(style, tuned.subject, item.shapes,
                  std::chrono::duration<double>(end - Clock::now()).count());
    for (std::size_t i = 0; i < item.shapes.size() && !interrupted; ++i, --shapes_left) {
      const TunedShape& shape = item.shapes[i];
      if (const ShapeRecord* finished = journal.finished(shape)) {
        view.end(i, *finished, true);
        tuned.records.push_back(*finished);
        continue;
      }
      view.begin(i);
      // Each shape has its share of what is left; earlier ones more, as their compiles serve the later ones,
      // too.
      const auto share = 2 * (end - Clock::now()) / static_cast<int>(shapes_left + 1);
      const auto until = Clock::now() + share, decode_until = Clock::now() + share * 3 / 4;
      const auto over = [](Clock::time_point limit) {
        return [limit] { return interrupted || Clock::now() >= limit; };
      };
      JournalingObserver observer(view, journal);
      ShapeRecord record =
          tune_shape(task, shape, journal.known(shape), {over(decode_until), over(until)}, observer);
      if (!interrupted) journal.add(record);
      file.put(entry_of(tuned.subject, record));
      file.write(out);
      ++found;
      view.end(i, record, false);
      tuned.records.push_back(std::move(record));
    }
    if (!interrupted) journal.remove();
    report.push_back(std::move(tuned));
  }
  if (!options.report.empty()) {
    const std::string html = tuning_report(report);
    write_output(options.report, std::as_bytes(std::span(html)));
  }
  if (options.json) {
    print_json({{"event", "done"},
                {"out", out},
                {"report", options.report},
                {"found", found},
                {"interrupted", interrupted.load()}});
  } else {
    fmt::print("\n{}: {} {}{}\n", out, file.entries().size(),
               file.entries().size() == 1 ? "entry" : "entries",
               interrupted ? "; interrupted: the same command goes on from here" : "");
    if (!options.report.empty()) fmt::print("{}: the report\n", options.report);
    if (!options.out.empty())
      fmt::print("use it with ADAMAS_TUNING={}\n", std::filesystem::absolute(out).string());
  }
  return 0;
}

}  // namespace

void add_tune(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<TuneOptions>();
  auto* command = app.add_subcommand("tune", "Find the fastest Tunings for Specs and shapes on this machine");
  command->require_subcommand(0, 1);
  command->add_option("--device", options->device, "auto, cpu or cuda:N")->capture_default_str();
  command->add_option("--spec", options->spec,
                      "Spec keys; what is left out takes its default, or the model's");
  command
      ->add_option("--shapes", options->shapes,
                   "lists of batch=, kv_heads=, tokens=; their product is tuned for")
      ->capture_default_str();
  command->add_option("--model", options->model, "a model's config.json: Specs and kv_heads are its own")
      ->type_name("FILE");
  command->add_option("--tensor-parallel", options->tensor_parallel, "--model: ranks that share the heads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command->add_option("--budget-time", options->seconds, "time to spend in all: 90s, 5m, 1h")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, double>{{"s", 1}, {"m", 60}, {"h", 3600}},
                                        CLI::AsNumberWithUnit::CASE_SENSITIVE))
      ->default_str("3m")
      ->check(CLI::PositiveNumber);
  command
      ->add_option(
          "--out", options->out,
          "the tuning file; what it holds of other shapes stays (default: where contexts look for it)")
      ->type_name("FILE");
  command->add_option("--report", options->report, "also write a report, one HTML file")->type_name("FILE");
  command->add_option("--jobs", options->jobs, "compiles at once (default: one a CPU, one less beside a GPU)")
      ->check(CLI::Range(1, 1024));
  add_memory_option(*command, options->memory_gb);
  command->add_flag("--dry-run", options->dry_run,
                    "only list what would be tried, and why the rest would not");
  command->add_option("--target", options->target,
                      "--dry-run: a target, in place of the device's; needs no device");
  command->add_flag("--fresh", options->fresh, "forget what an interrupted run has found");
  command->add_flag("--exhaustive", options->exhaustive,
                    "time every candidate at length and drop none: slow, to judge the search itself");
  command->add_flag("--json", options->json, "events, one JSON object a line");
  command->footer(
      "Every candidate must select the same tokens as the reference, and attend to them as it does, before "
      "it may "
      "win. Candidates run in a process of their own: one that crashes or hangs loses. Ctrl-C keeps what was "
      "found; "
      "the same command goes on from there.\n\n"
      "Example:\n  adamas tune --device cuda:0 --spec \"group=4 kv_type=bf16\" --shapes \"batch=1,16 "
      "kv_heads=8 "
      "tokens=8192,32768,131072\" --budget-time 3m --report tuning.html");
  add_tune_files(*command, chosen);
  command->callback([options, command, &chosen] {
    if (command->get_subcommands().empty()) chosen = [options] { return run(*options); };
  });
}

}  // namespace adamas::tools
