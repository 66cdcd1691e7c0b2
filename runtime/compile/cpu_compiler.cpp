// Finds adamas-cc, hands it source text and target, and judges its answer.
#include "runtime/compile/cpu_compiler.hpp"

#include <dlfcn.h>
#include <fmt/ranges.h>
#include <limits.h>
#include <link.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <system_error>

#include "codegen/format.hpp"
#include "runtime/compile/cc_protocol.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/compile/subprocess.hpp"

namespace adamas::runtime {
namespace {

namespace fs = std::filesystem;

constexpr char kInstallHint[] =
    "install adamas-jit with its CPU compiler, set ADAMAS_CC to the path of adamas-cc, or use a cache or "
    "pack that "
    "holds the kernel";
constexpr char kLibrariesHint[] = "on Debian: apt-get install libclang-cpp19 libllvm19";
constexpr std::chrono::seconds kVersionTimeLimit{20};
constexpr std::uint64_t kWrongUse = 2;  // adamas-cc's status for options it doesn't take

/// Folder of the shared library, or of the executable, that this code is part of.
fs::path own_folder() {
  Dl_info info;
  link_map* module = nullptr;
  static const char here = 0;
  const bool found = dladdr1(&here, &info, reinterpret_cast<void**>(&module), RTLD_DL_LINKMAP) != 0;
  // The main program's name is empty there, and argv[0] elsewhere: only the kernel knows its path.
  const fs::path file = found && module && module->l_name[0] ? module->l_name : "/proc/self/exe";
  std::error_code failure;
  return fs::canonical(file, failure).parent_path();
}

/// Installed: lib[/triplet]/libadamas.so and libexec/adamas/adamas-cc. In a build tree:
/// tools/adamas-cc/adamas-cc beside runtime/ and tests/. Or both in one folder.
/// @return  empty if there is none
std::string find_beside_library() {
  const fs::path own = own_folder();
  if (own.empty()) return {};
  for (const fs::path& folder : {own, own.parent_path(), own.parent_path().parent_path()}) {
    for (const char* place : {"adamas-cc", "libexec/adamas/adamas-cc", "tools/adamas-cc/adamas-cc"}) {
      const fs::path candidate = folder / place;
      std::error_code failure;
      if (fs::is_regular_file(candidate, failure) && access(candidate.c_str(), X_OK) == 0)
        return candidate.string();
    }
  }
  return {};
}

struct Identity {
  std::string text;      // "adamas-cc 0.1.0 (LLVM 19.1.7) build 0123456789abcdef"
  std::string build_id;  // empty: not known yet
};

/// @throws nlohmann::json::exception  not what adamas-cc writes
Identity parse_identity(std::string_view json_text) {
  const auto json = nlohmann::json::parse(json_text);
  const auto field = [&](const char* key) { return json.at(key).get<std::string>(); };
  return {fmt::format("{} {} (LLVM {}) build {}", field("name"), field("version"), field("llvm"),
                      field("build_id")),
          field("build_id")};
}

std::string describe_end(const SubprocessResult& result) {
  if (result.timed_out) return "it was killed at the time limit";
  if (!result.exit_status) return "its exit status was taken by the host process";
  if (*result.exit_status > 128) return fmt::format("it was ended by signal {}", *result.exit_status - 128);
  return fmt::format("its exit status is {}", *result.exit_status);
}

class CpuCompiler final : public Compiler {
 public:
  explicit CpuCompiler(CpuCompilerConfig config) : config_(std::move(config)) {
    config_.program = cpu_compiler_program(config_);
  }

  std::string name() const override { return "adamas-cc"; }

  std::string unavailable() const override {
    try {
      identity();
      return {};
    } catch (const codegen::Error& error) {
      return error.what();
    }
  }

  std::string build_id() override { return identity().build_id; }

  std::vector<std::string> implied_options() const override {
    if (config_.sanitize.empty()) return {};
    return {"--sanitize=" + config_.sanitize};
  }

  CompileResult compile(const CompileRequest& original) override;

 private:
  const std::string& program() const {
    if (config_.program.empty()) {
      throw codegen::Error(ADAMAS_UNAVAILABLE, "adamas-cc", "", "the CPU compiler was not found",
                           kInstallHint);
    }
    if (access(config_.program.c_str(), X_OK) != 0) {
      throw codegen::Error(ADAMAS_UNAVAILABLE, "adamas-cc", config_.program,
                           "must be a program that can be run", kInstallHint);
    }
    return config_.program;
  }

  /// Asks the program once, and again as long as it can't tell.
  Identity identity() const;

  void remember(const Identity& identity) {
    const std::lock_guard lock(mutex_);
    identity_ = identity;
  }

  [[noreturn]] void fail_without_answer(const CompileRequest& request, const SubprocessResult& result) const;

  CpuCompilerConfig config_;
  mutable std::mutex mutex_;  // guards identity_; no program runs under it
  mutable Identity identity_;
};

Identity CpuCompiler::identity() const {
  {
    const std::lock_guard lock(mutex_);
    if (!identity_.build_id.empty()) return identity_;
  }
  const SubprocessResult result = run_subprocess({program(), "--version"}, "", kVersionTimeLimit);
  try {
    const Identity identity = parse_identity(result.output);
    const std::lock_guard lock(mutex_);
    return identity_ = identity;
  } catch (const nlohmann::json::exception&) {
    throw codegen::Error(
        ADAMAS_UNAVAILABLE, "adamas-cc", program(),
        fmt::format("did not tell its version; {}: {}", describe_end(result), result.diagnostics),
        kLibrariesHint);
  }
}

/// The program died, was killed, or is not adamas-cc: no fault of the source, so nothing is dumped.
void CpuCompiler::fail_without_answer(const CompileRequest& request, const SubprocessResult& result) const {
  if (result.timed_out) {
    throw codegen::Error(
        ADAMAS_COMPILE_FAILED, "source", request.name,
        fmt::format("adamas-cc was killed after {} ms without a result for target {}, spec [{}]",
                    config_.time_limit.count(), request.target, request.spec_text),
        "the machine may be overloaded; compile ahead of time, or raise the time limit");
  }
  const bool loader_failed = result.exit_status == 127;
  throw codegen::Error(
      loader_failed ? ADAMAS_UNAVAILABLE : ADAMAS_COMPILE_FAILED, "adamas-cc", program(),
      fmt::format("ended without a result for {} (target {}, spec [{}]); {}: {}", request.name,
                  request.target, request.spec_text, describe_end(result), result.diagnostics),
      loader_failed ? kLibrariesHint : "");
}

CompileResult CpuCompiler::compile(const CompileRequest& original) {
  CompileRequest request = original;
  if (request.target.empty() || request.target == "host") request.target = host_cpu_target();
  std::vector<std::string> options = request.options;
  for (std::string& option : implied_options())
    options.push_back(std::move(option));

  std::vector<std::string> argv = {program(), "--frame", "--target=" + request.target,
                                   "--name=" + request.name};
  argv.insert(argv.end(), options.begin(), options.end());

  const auto start = std::chrono::steady_clock::now();
  SubprocessResult result = run_subprocess(argv, request.source, config_.time_limit);
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;

  const auto answer = parse_cc_answer(result.output);
  if (!answer) fail_without_answer(request, result);
  Identity identity;
  try {
    identity = parse_identity(answer->identity);
  } catch (const nlohmann::json::exception&) {
    fail_without_answer(request, result);
  }
  remember(identity);
  if (answer->status == kWrongUse) {
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "target", request.target,
                         fmt::format("adamas-cc does not take it with options [{}]: {}",
                                     fmt::join(options, " "), result.diagnostics));
  }
  if (answer->status != 0)
    throw CompileError(request, identity.text, std::move(options), std::move(result.diagnostics));

  const auto* bytes = reinterpret_cast<const std::byte*>(answer->binary.data());
  return {std::vector<std::byte>(bytes, bytes + answer->binary.size()), std::move(result.diagnostics),
          identity.text, elapsed.count()};
}

}  // namespace

CpuCompilerConfig CpuCompilerConfig::from_environment() {
  const auto text = [](const char* name) {
    const char* value = secure_getenv(name);
    return std::string(value ? value : "");
  };
  CpuCompilerConfig config;
  config.program = text("ADAMAS_CC");
  config.sanitize = text("ADAMAS_CC_SANITIZE");
  return config;
}

std::string cpu_compiler_program(const CpuCompilerConfig& config) {
  return config.program.empty() ? find_beside_library() : config.program;
}

std::unique_ptr<Compiler> make_cpu_compiler(CpuCompilerConfig config) {
  return std::make_unique<CpuCompiler>(std::move(config));
}

}  // namespace adamas::runtime
