// Commands for tuning files: see tune_files.hpp.
#include "tools/tune/tune_files.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/target.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "tools/bandwidth.hpp"
#include "tools/kernel_request.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using codegen::Spec;
using codegen::Tuning;
using runtime::TunedEntry;
using runtime::TuningFile;

struct FileOptions {
  std::vector<std::string> files;
  std::string out, device = "auto";
  double regression = 0.03;
  std::optional<double> memory_gb;
  bool json = false;
};

/// The files named, merged; later ones win. The default file without a name.
TuningFile files_of(const FileOptions& options) {
  TuningFile file;
  for (const std::string& path : options.files)
    file.merge(TuningFile::read(path));
  if (options.files.empty()) file = TuningFile::read(tuning_file_path());
  return file;
}

std::string difference(const TunedEntry& entry) {
  const Spec spec = Spec::parse(entry.spec);
  const std::string text = codegen::tuning_difference(Tuning::parse(entry.tuning, spec, entry.target),
                                                      Tuning::parse("", spec, entry.target));
  return text.empty() ? "default" : text;
}

std::string ratio(double above, double below) {
  return above > 0 && below > 0 ? fmt::format("{:.3f}x", above / below) : "-";
}

int show(const FileOptions& options) {
  const TuningFile file = files_of(options);
  if (options.json) {
    for (const TunedEntry& entry : file.entries())
      print_json(json_of(entry));
    return 0;
  }
  Table table({"spec", "target", "device", "batch", "kv_heads", "tokens", "us", "of default", "over dense",
               "tuning"});
  for (const TunedEntry& entry : file.entries()) {
    table.add({short_spec(entry.spec), short_target(entry.target), entry.device_name,
               fmt::to_string(entry.shape.batch), fmt::to_string(entry.shape.kv_heads),
               fmt::to_string(entry.shape.tokens), fmt::format("{:.2f}", entry.us),
               ratio(entry.default_us, entry.us), ratio(entry.dense_us, entry.us), difference(entry)});
  }
  table.print();
  return 0;
}

int merge(const FileOptions& options) {
  TuningFile file = files_of(options);
  file.write(options.out);
  if (options.json) {
    print_json({{"out", options.out}, {"entries", file.entries().size()}});
  } else {
    fmt::print("{}: {} entries\n", options.out, file.entries().size());
  }
  return 0;
}

/// Lines as `precompile --tuning` reads them: a Spec has one Tuning there, that of its largest shape.
int export_lines(const FileOptions& options) {
  std::vector<const TunedEntry*> last;
  const TuningFile file = files_of(options);
  for (const TunedEntry& entry : file.entries()) {
    if (!last.empty() && last.back()->spec == entry.spec && last.back()->target == entry.target)
      last.pop_back();
    last.push_back(&entry);
  }
  for (const TunedEntry* entry : last)
    fmt::print("{} {} -> {}\n", entry->target, entry->spec, entry->tuning);
  return 0;
}

/// One entry timed again, beside the default.
struct Verified {
  double us = 0, default_us = 0;
  std::string verdict;
  bool regressed = false;
};

Verified verify_entry(const TunedEntry& entry, const TuneTask& task, double regression) {
  constexpr int kRounds = 21;
  Verified verified;
  try {
    const std::string base = Tuning::parse("", task.spec, task.target).text();
    auto us = time_tunings(task, entry.shape, {base, entry.tuning}, false, kRounds);
    const auto median = [](std::vector<double>& figures) {
      std::ranges::nth_element(figures, figures.begin() + kRounds / 2);
      return figures[kRounds / 2];
    };
    std::vector<double> ratios;
    for (int i = 0; i < kRounds; ++i)
      ratios.push_back(us[1][i] / us[0][i]);
    verified.default_us = median(us[0]), verified.us = median(us[1]);
    const double now = median(ratios), then = entry.default_us > 0 ? entry.us / entry.default_us : 1;
    verified.regressed = now > std::min(1.0, then) + regression;
    verified.verdict = !verified.regressed    ? "holds"
                       : now > 1 + regression ? "slower than the default"
                                              : fmt::format("gains {:.1f} % now, {:.1f} % then",
                                                            100 * (1 - now), 100 * (1 - then));
  } catch (const Error& error) {
    verified.regressed = true;
    verified.verdict = error.rule();
  }
  return verified;
}

int verify(const FileOptions& options) {
  const TuningFile file = files_of(options);
  const Context context(options.device.c_str());
  const auto info = context.info();
  const auto device = runtime::open_device(info.device, 0);
  const std::string target = device->targets().front();
  Progress progress(options.json);
  Table table(
      {"spec", "batch", "kv_heads", "tokens", "us then", "us now", "of default then", "now", "verdict"});
  int regressions = 0, passed_over = 0;
  for (const TunedEntry& entry : file.entries()) {
    if (entry.target != target || entry.device_name != device->name()) {
      ++passed_over;
      continue;
    }
    const TuneTask task{.device = info.device,
                        .program = std::filesystem::read_symlink("/proc/self/exe"),
                        .spec = Spec::parse(entry.spec),
                        .target = target,
                        .processors = device->processors(),
                        .memory_bytes = cache_memory(options.memory_gb, target)};
    progress.say(fmt::format("batch={} kv_heads={} tokens={}", entry.shape.batch, entry.shape.kv_heads,
                             entry.shape.tokens));
    const Verified verified = verify_entry(entry, task, options.regression);
    progress.say("");
    regressions += verified.regressed;
    if (options.json) {
      auto object = json_of(entry);
      object["us_now"] = verified.us, object["default_us_now"] = verified.default_us;
      object["verdict"] = verified.verdict, object["regressed"] = verified.regressed;
      print_json(object);
      continue;
    }
    table.add({short_spec(entry.spec), fmt::to_string(entry.shape.batch),
               fmt::to_string(entry.shape.kv_heads), fmt::to_string(entry.shape.tokens),
               fmt::format("{:.2f}", entry.us), fmt::format("{:.2f}", verified.us),
               ratio(entry.default_us, entry.us), ratio(verified.default_us, verified.us), verified.verdict});
  }
  if (!options.json) {
    table.print();
    if (passed_over > 0)
      fmt::print("{} {} of other devices were passed over\n", passed_over,
                 passed_over == 1 ? "entry" : "entries");
  }
  return regressions == 0 ? 0 : 1;
}

}  // namespace

std::string tuning_file_path() {
  const std::string folder = runtime::Cache::default_directory();
  if (folder.empty())
    throw Error(ADAMAS_IO_ERROR, "out", "",
                "must be given: there is no cache folder to keep a tuning file in",
                "--out FILE, or set ADAMAS_CACHE_DIR");
  std::filesystem::create_directories(folder);
  return folder + "/tuning.json";
}

double cache_memory(std::optional<double> gb, std::string_view target) {
  return 1e9 * gb.value_or(codegen::is_cuda_target(target) ? 20 : 2);
}

void add_memory_option(CLI::App& command, std::optional<double>& gb) {
  command.add_option("--memory", gb, "GB that the caches may take (default: 20, on the CPU 2)")
      ->check(CLI::PositiveNumber);
}

TuneSubject subject_of(const TuneTask& task, const runtime::Device& device) {
  const bool cuda = codegen::is_cuda_target(task.target);
  return {
      .spec = task.spec.text(),
      .target = task.target,
      .device = device.id(),
      .device_name = device.name(),
      .driver = cuda ? "CUDA " + runtime::cuda_version_text(runtime::cuda_driver().version) : "",
      .library = fmt::format("{}.{}.{}", ADAMAS_VERSION_MAJOR, ADAMAS_VERSION_MINOR, ADAMAS_VERSION_PATCH),
      .read_gbps = measure_bandwidth(device)};
}

void add_tune_files(CLI::App& tune, Action& chosen) {
  const auto add = [&](const char* name, const char* help, const char* example,
                       int (*action)(const FileOptions&)) {
    const auto options = std::make_shared<FileOptions>();
    CLI::App* command = tune.add_subcommand(name, help);
    command->add_option("files", options->files,
                        "tuning files; later ones win (default: the one contexts look for)");
    command->footer(std::string("Example:\n  ") + example);
    command->callback(
        [options, action, &chosen] { chosen = [options, action] { return action(*options); }; });
    return std::pair(command, options);
  };
  const auto [show_command, shown] =
      add("show", "What tuning files hold", "adamas tune show h100.json", show);
  show_command->add_flag("--json", shown->json, "one JSON object an entry");
  const auto [merge_command, merged] =
      add("merge", "Several tuning files into one", "adamas tune merge a.json b.json --out both.json", merge);
  merge_command->add_option("--out", merged->out, "the file to write")->required();
  merge_command->add_flag("--json", merged->json, "one JSON object");
  const auto [verify_command, verified] =
      add("verify", "Time the entries of this device again, beside the default; exit code 1 if any got worse",
          "adamas tune verify --device cuda:0 h100.json", verify);
  verify_command->add_option("--device", verified->device, "auto, cpu or cuda:N")->capture_default_str();
  verify_command
      ->add_option("--regression", verified->regression, "share of the default's time that counts as worse")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  add_memory_option(*verify_command, verified->memory_gb);
  verify_command->add_flag("--json", verified->json, "one JSON object an entry");
  add("export", "Lines for `adamas precompile --tuning`: of each Spec the Tuning of its largest shape",
      "adamas tune export h100.json > tunings.txt", export_lines);
}

}  // namespace adamas::tools
