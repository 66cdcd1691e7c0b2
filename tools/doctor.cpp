// `adamas doctor`: what works on this machine and what doesn't, each with its fix. Compilers are tried, not
// just found.
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/compile/cpu_compiler.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "runtime/device/cpu_count.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "runtime/device/device.hpp"
#include "runtime/dispatch/policy.hpp"
#include "tools/cli.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using nlohmann::ordered_json;

/// absent: not here, and nothing that is here needs it. problem: the detail ends with the way out.
enum class State { ok, absent, problem };

struct Check {
  std::string subject;
  State state;
  std::string detail;
  ordered_json facts = ordered_json::object();
};

struct DeviceReport {
  std::string id;
  std::vector<std::string> targets;
  std::string problem;  ///< why it cannot prepare kernels; empty if it can
};

struct Diagnosis {
  std::vector<Check> checks;
  std::vector<DeviceReport> devices;
};

struct CompilerTrial {
  std::string identity{};  ///< name, version, build id
  double milliseconds = 0;
  std::string problem{};
};

CompilerTrial try_compiler(runtime::Compiler& compiler, const std::string& source,
                           const std::string& target) {
  try {
    if (const std::string missing = compiler.unavailable(); !missing.empty()) return {.problem = missing};
    const runtime::CompileResult result = compiler.compile(
        {.name = "doctor", .source = source, .target = target, .options = {}, .spec_text = {}});
    return {.identity = result.compiler, .milliseconds = result.milliseconds};
  } catch (const codegen::Error& error) {
    return {.problem = error.what()};
  }
}

// ---- CUDA: driver, GPUs, NVRTC
// ---------------------------------------------------------------------------------------

bool has_gpu() { return runtime::cuda_backend().device_count() > 0; }

constexpr char kNvrtcPath[] = "ADAMAS_NVRTC_PATH";

/// Without a GPU, NVRTC is needed only by those who compile for one, unless somebody named the one to take.
State missing_nvrtc() { return has_gpu() || secure_getenv(kNvrtcPath) ? State::problem : State::absent; }

Check check_driver() {
  const runtime::CudaDriver& driver = runtime::cuda_driver();
  Check check{"CUDA driver", State::ok, driver.problem};
  check.facts["version"] = driver.version == 0 ? "" : runtime::cuda_version_text(driver.version);
  check.facts["devices"] = driver.devices;
  if (!driver.problem.empty()) {
    check.state = driver.version == 0 ? State::absent : State::problem;
  } else {
    check.detail =
        fmt::format("libcuda.so.1, CUDA {}, {} device{}", runtime::cuda_version_text(driver.version),
                    driver.devices, driver.devices == 1 ? "" : "s");
  }
  return check;
}

/// Compiles for the newest GPU here; without one, for the oldest architecture that NVRTC knows and kernels
/// run on.
CompilerTrial try_nvrtc(const std::vector<DeviceReport>& gpus) {
  const auto& library = runtime::nvrtc_choice().library;
  if (!library) return {.problem = runtime::nvrtc_choice().problem};
  const bool gpu_targets = !gpus.empty() && !gpus.front().targets.empty();
  const std::string target = gpu_targets ? gpus.front().targets.front() : "sm_90";
  return try_compiler(*runtime::nvrtc_compiler(), "extern \"C\" __global__ void adamas_doctor() {}", target);
}

std::string why_chosen(const runtime::NvrtcCandidate& candidate) {
  if (candidate.origin == kNvrtcPath) return "ADAMAS_NVRTC_PATH names it";
  if (candidate.origin == "this process") return "this process has it loaded";
  const int driver = runtime::cuda_driver().version;
  if (driver == 0) return "the newest here; there is no driver to suit";
  return fmt::format("the newest that the driver (CUDA {}) can load the results of",
                     runtime::cuda_version_text(driver));
}

/// "beside it" or "on the library path"; a candidate without builtins has a problem instead.
std::string builtins_place(const runtime::NvrtcCandidate& candidate) {
  const auto name = fmt::format("libnvrtc-builtins.so.{}.{}", candidate.major, candidate.minor);
  std::error_code failure;
  const auto beside = std::filesystem::path(candidate.path).parent_path() / name;
  return std::filesystem::exists(beside, failure) ? "beside it" : "on the library path";
}

Check check_candidate(const runtime::NvrtcCandidate& candidate, const CompilerTrial& trial) {
  Check check{"NVRTC", State::ok, {}};
  std::string problem = candidate.problem;
  if (candidate.chosen && problem.empty()) problem = trial.problem;
  if (!problem.empty()) {
    check.state = candidate.chosen || candidate.origin == kNvrtcPath ? missing_nvrtc() : State::absent;
    check.detail = fmt::format("{} ({}): {}", candidate.path, candidate.origin, problem);
  } else {
    const std::string version = candidate.minor < 0 ? fmt::format("{}", candidate.major)
                                                    : fmt::format("{}.{}", candidate.major, candidate.minor);
    check.detail = fmt::format("{} {} ({}), builtins {}", version, candidate.path, candidate.origin,
                               builtins_place(candidate));
    if (candidate.chosen) {
      check.detail += fmt::format("; {}; chosen: {}; a test compile took {}", trial.identity,
                                  why_chosen(candidate), human_milliseconds(trial.milliseconds));
    }
  }
  check.facts = {{"path", candidate.path},   {"origin", candidate.origin}, {"major", candidate.major},
                 {"minor", candidate.minor}, {"chosen", candidate.chosen}, {"problem", problem}};
  if (candidate.chosen) check.facts["compiler"] = trial.identity;
  return check;
}

void check_nvrtc(Diagnosis& diagnosis, const CompilerTrial& trial) {
  const std::vector<runtime::NvrtcCandidate> candidates = runtime::nvrtc_candidates();
  for (const auto& candidate : candidates)
    diagnosis.checks.push_back(check_candidate(candidate, trial));
  if (runtime::nvrtc_choice().library) return;
  diagnosis.checks.push_back({"NVRTC", missing_nvrtc(), runtime::nvrtc_choice().problem});
}

void check_cuda(Diagnosis& diagnosis) {
  diagnosis.checks.push_back(check_driver());
  std::vector<Check> gpus;
  for (int ordinal = 0; ordinal < runtime::cuda_backend().device_count(); ++ordinal) {
    DeviceReport report{fmt::format("cuda:{}", ordinal), {}, {}};
    Check check{report.id, State::ok, {}};
    try {
      const auto device = runtime::cuda_backend().open(ordinal, 0);
      report.targets = device->targets();
      check.detail = fmt::format("{}; targets {}", device->name(), fmt::join(report.targets, ", "));
      check.facts = {{"name", device->name()}, {"targets", report.targets}};
    } catch (const codegen::Error& error) {
      report.problem = error.what();
      check.state = State::problem;
      check.detail = error.what();
    }
    gpus.push_back(std::move(check));
    diagnosis.devices.push_back(std::move(report));
  }
  std::move(gpus.begin(), gpus.end(), std::back_inserter(diagnosis.checks));
  const CompilerTrial trial = try_nvrtc(diagnosis.devices);
  check_nvrtc(diagnosis, trial);
  for (DeviceReport& report : diagnosis.devices) {
    if (report.problem.empty()) report.problem = trial.problem;
  }
}

// ---- CPU: the machine, adamas-cc
// -------------------------------------------------------------------------------------

/// Vector extensions that kernels gain from, widest first, of an exact target's feature list.
std::vector<std::string> vector_features(const std::string& target) {
  std::vector<std::string> found;
  for (const char* name : {"avx512vnni", "avx512bw", "avx512f", "avx2", "f16c", "fma", "sse4.2", "sve2",
                           "sve", "dotprod", "fullfp16"}) {
    const std::string feature = std::string("+") + name;
    for (std::size_t at = target.find(feature); at != target.npos; at = target.find(feature, at + 1)) {
      const std::size_t end = at + feature.size();
      if (end != target.size() && target[end] != ',') continue;  // "+sve" in "+sve2"
      found.emplace_back(name);
      break;
    }
  }
  return found;
}

void check_cpu(Diagnosis& diagnosis) {
  const auto device = runtime::cpu_backend().open(0, 1);
  DeviceReport report{"cpu", device->targets(), {}};
  const std::string& exact = report.targets.front();
  const std::vector<std::string> levels(report.targets.begin() + 1, report.targets.end());
  Check cpu{"cpu", State::ok, {}};
  cpu.detail =
      fmt::format("{}, {} usable thread{}; target {}, also {}; vectors: {}", device->name(),
                  runtime::usable_cpus(), runtime::usable_cpus() == 1 ? "" : "s", short_target(exact),
                  levels.empty() ? "none" : fmt::format("{}", fmt::join(levels, ", ")),
                  fmt::join(vector_features(exact), ", "));
  cpu.facts = {{"name", device->name()},
               {"threads", runtime::usable_cpus()},
               {"targets", report.targets},
               {"vectors", vector_features(exact)}};
  diagnosis.checks.push_back(std::move(cpu));

  const std::string program = runtime::cpu_compiler_program();
  const CompilerTrial trial =
      try_compiler(*device->compiler(),
                   "extern \"C\" __attribute__((visibility(\"default\"))) void adamas_doctor() {}", exact);
  report.problem = trial.problem;
  Check compiler{"CPU compiler", trial.problem.empty() ? State::ok : State::problem, trial.problem};
  if (trial.problem.empty()) {
    compiler.detail = fmt::format("{}; {}; a test compile took {}", program, trial.identity,
                                  human_milliseconds(trial.milliseconds));
  }
  compiler.facts = {{"path", program}, {"compiler", trial.identity}, {"problem", trial.problem}};
  diagnosis.checks.push_back(std::move(compiler));
  diagnosis.devices.push_back(std::move(report));
}

// ---- Cache folder, device choice
// -------------------------------------------------------------------------------------

Check check_cache() {
  std::string warning;
  const runtime::Cache cache(std::nullopt, [&warning](runtime::LogLevel level, const std::string& message) {
    if (level == runtime::LogLevel::warning) warning += (warning.empty() ? "" : "; ") + message;
  });
  const std::string& folder = cache.directory();
  if (folder.empty()) return {"cache folder", State::problem, warning, {{"path", ""}, {"problem", warning}}};

  const runtime::CacheStats stats = cache.stats();
  struct stat status{};
  const bool known = stat(folder.c_str(), &status) == 0;
  const bool writable = access(folder.c_str(), W_OK) == 0;
  std::string problem = warning;
  if (!writable)
    problem = "is not writable: new kernels stay in memory; set ADAMAS_CACHE_DIR to another folder";
  Check check{"cache folder", problem.empty() ? State::ok : State::problem, {}};
  check.detail = fmt::format("{}: {} entries, {}; owner {}, mode {:04o}{}{}", folder, stats.entries,
                             human_bytes(stats.bytes), known ? fmt::to_string(status.st_uid) : "unknown",
                             known ? status.st_mode & 07777u : 0u, problem.empty() ? "" : "; ", problem);
  check.facts = {{"path", folder},
                 {"entries", stats.entries},
                 {"bytes", stats.bytes},
                 {"owner", status.st_uid},
                 {"mode", fmt::format("{:04o}", status.st_mode & 07777u)},
                 {"writable", writable},
                 {"problem", problem}};
  return check;
}

/// Each pack of $ADAMAS_PACKS, or why it is not used.
void check_packs(Diagnosis& diagnosis) {
  std::vector<std::string> warnings;
  const runtime::Cache cache(runtime::CacheOptions{
      .directory = "", .log = [&warnings](runtime::LogLevel level, const std::string& message) {
        if (level == runtime::LogLevel::warning) warnings.push_back(message);
      }});
  for (const auto& pack : cache.packs()) {
    Check check{"pack", State::ok, {}};
    check.detail = fmt::format("{}: {} entries, {}", pack->path(), pack->entries(), human_bytes(pack->bytes()));
    check.facts = {{"path", pack->path()}, {"entries", pack->entries()}, {"bytes", pack->bytes()}};
    diagnosis.checks.push_back(std::move(check));
  }
  for (const std::string& warning : warnings)
    diagnosis.checks.push_back({"pack", State::problem, warning});
}

/// Whether hosts here may compile, and what all processes that used the folder counted.
void check_compiling(Diagnosis& diagnosis) {
  Check policy{"compile policy", State::ok, {}};
  try {
    const char* const names[] = {"allow", "deny", "background"};
    policy.detail = names[static_cast<int>(runtime::parse_compile_policy(""))];
    policy.facts = {{"policy", policy.detail}};
    policy.detail += secure_getenv("ADAMAS_COMPILE") ? " (ADAMAS_COMPILE)" : " (ADAMAS_COMPILE is not set)";
  } catch (const codegen::Error& error) {
    policy.state = State::problem;
    policy.detail = error.what();
  }
  diagnosis.checks.push_back(std::move(policy));

  const runtime::CacheTotals totals = runtime::Cache(std::nullopt, {}).totals();
  Check counted{"cache counters", State::ok, totals_text(totals)};
  counted.facts = {{"since_us", totals.since_us},       {"compiles", totals.compiles},
                   {"hits_memory", totals.hits_memory}, {"hits_pack", totals.hits_pack},
                   {"hits_folder", totals.hits_disk},   {"waits", totals.waits},
                   {"wait_timeouts", totals.wait_timeouts}, {"fallbacks", totals.fallbacks}};
  diagnosis.checks.push_back(std::move(counted));
}

/// What hosts get that ask for "auto", and whether that one can prepare kernels.
Check check_auto(const std::vector<DeviceReport>& devices) {
  Check check{"device \"auto\"", State::ok, {}};
  try {
    const std::string id = runtime::open_device("auto", 1)->id();
    check.detail = id;
    check.facts["device"] = id;
    const auto report =
        std::find_if(devices.begin(), devices.end(), [&](const auto& device) { return device.id == id; });
    if (report != devices.end() && !report->problem.empty()) {
      check.state = State::problem;
      check.detail += ", which runs only kernels that are in the cache already: " + report->problem;
    }
  } catch (const codegen::Error& error) {
    check.state = State::problem;
    check.detail = error.what();
  }
  return check;
}

// ---- Output
// ----------------------------------------------------------------------------------------------------------

const char* text(State state) {
  switch (state) {
    case State::ok:
      return "OK";
    case State::absent:
      return "—";
    case State::problem:
      return "problem";
  }
  return "";
}

void print_diagnosis(const Diagnosis& diagnosis, bool ready) {
  Table table({"what", "state", "detail"});
  for (const Check& check : diagnosis.checks)
    table.add({check.subject, text(check.state), check.detail});
  table.print();
  std::vector<std::string> able;
  for (const DeviceReport& device : diagnosis.devices) {
    if (device.problem.empty()) able.push_back(device.id);
  }
  std::printf("\n%s\n",
              ready ? fmt::format("kernels can be prepared on: {}", fmt::join(able, ", ")).c_str()
                    : "no device can prepare a kernel that is not in the cache: mend a problem above");
}

void print_diagnosis_json(const Diagnosis& diagnosis, bool ready) {
  ordered_json checks = ordered_json::array(), devices = ordered_json::array();
  for (const Check& check : diagnosis.checks) {
    ordered_json object{{"what", check.subject},
                        {"state", check.state == State::absent ? "absent"
                                  : check.state == State::ok   ? "ok"
                                                               : "problem"},
                        {"detail", check.detail}};
    object.update(check.facts);
    checks.push_back(std::move(object));
  }
  for (const DeviceReport& device : diagnosis.devices) {
    devices.push_back({{"id", device.id},
                       {"targets", device.targets},
                       {"ready", device.problem.empty()},
                       {"problem", device.problem}});
  }
  print_json({{"ready", ready}, {"devices", std::move(devices)}, {"checks", std::move(checks)}});
}

int doctor(bool json) {
  Diagnosis diagnosis;
  {
    Progress progress(json);
    progress.say("looking at the GPU side: driver, devices, NVRTC");
    check_cuda(diagnosis);
    progress.say("looking at the CPU side: features, adamas-cc");
    check_cpu(diagnosis);
  }
  check_packs(diagnosis);
  diagnosis.checks.push_back(check_cache());
  check_compiling(diagnosis);
  diagnosis.checks.push_back(check_auto(diagnosis.devices));
  const bool ready = std::any_of(diagnosis.devices.begin(), diagnosis.devices.end(),
                                 [](const DeviceReport& device) { return device.problem.empty(); });
  if (json) {
    print_diagnosis_json(diagnosis, ready);
  } else {
    print_diagnosis(diagnosis, ready);
  }
  return ready ? 0 : 1;
}

}  // namespace

void add_doctor(CLI::App& app, Action& chosen) {
  const auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("doctor", "Say what works here and what doesn't, each with its fix");
  command->add_flag("--json", *json, "one JSON object");
  command->footer(
      "Exit code: 0 if at least one device can prepare kernels, else 1.\n\nExample:\n  adamas doctor --json");
  command->callback([json, &chosen] { chosen = [json] { return doctor(*json); }; });
}

}  // namespace adamas::tools
