// Compiling with NVRTC: options, errors, the compiler's identity, and reading ptxas' log.
#include "runtime/compile/nvrtc_compiler.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "codegen/format.hpp"
#include "codegen/target.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

/// One NVRTC program: created, compiled once, asked for its results, destroyed.
class Program {
 public:
  Program(const NvrtcLibrary& nvrtc, const std::string& name, const std::string& source) : nvrtc_(nvrtc) {
    check(nvrtc.nvrtcCreateProgram(&program_, source.c_str(), name.c_str(), 0, nullptr, nullptr),
          "nvrtcCreateProgram");
  }
  ~Program() { nvrtc_.nvrtcDestroyProgram(&program_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  nvrtcResult compile(const std::vector<std::string>& options) {
    std::vector<const char*> texts;
    for (const std::string& option : options)
      texts.push_back(option.c_str());
    return nvrtc_.nvrtcCompileProgram(program_, static_cast<int>(texts.size()), texts.data());
  }

  std::string log() const {
    std::string text = read<std::string>(nvrtc_.nvrtcGetProgramLogSize, nvrtc_.nvrtcGetProgramLog, "log");
    text.erase(std::find(text.begin(), text.end(), '\0'), text.end());
    while (!text.empty() && text.back() == '\n')
      text.pop_back();
    return text;
  }
  std::string ptx() const { return read<std::string>(nvrtc_.nvrtcGetPTXSize, nvrtc_.nvrtcGetPTX, "PTX"); }
  std::vector<std::byte> cubin() const {
    return read<std::vector<std::byte>>(nvrtc_.nvrtcGetCUBINSize, nvrtc_.nvrtcGetCUBIN, "cubin");
  }

  void check(nvrtcResult result, const char* what) const {
    if (result == NVRTC_SUCCESS) return;
    throw Error(result == NVRTC_ERROR_OUT_OF_MEMORY ? ADAMAS_OUT_OF_MEMORY : ADAMAS_COMPILE_FAILED, "NVRTC",
                nvrtc_.version(), fmt::format("{} failed: {}", what, nvrtc_.nvrtcGetErrorString(result)));
  }

 private:
  template <class Bytes>
  Bytes read(nvrtcResult (*size_of)(nvrtcProgram, std::size_t*), nvrtcResult (*get)(nvrtcProgram, char*),
             const char* what) const {
    std::size_t size = 0;
    check(size_of(program_, &size), what);
    Bytes bytes(size, {});
    if (size > 0) check(get(program_, reinterpret_cast<char*>(bytes.data())), what);
    return bytes;
  }

  const NvrtcLibrary& nvrtc_;
  nvrtcProgram program_ = nullptr;
};

[[noreturn]] void refuse_target(const NvrtcLibrary& nvrtc, const std::string& target) {
  throw Error(ADAMAS_UNSUPPORTED, "target", target,
              fmt::format("NVRTC {} ({}) does not compile for it, only for sm_{}", nvrtc.version(),
                          nvrtc.path, fmt::join(nvrtc.architectures, ", sm_")),
              "take another NVRTC: pip install nvidia-cuda-nvrtc, or a CUDA toolkit for this architecture, "
              "or name one "
              "in ADAMAS_NVRTC_PATH");
}

/// An architecture that NVRTC lists may lack the variant asked for (sm_80a): then the log complains of the
/// option.
bool refuses_architecture(const std::string& log) {
  return log.find("--nv_arch flag") != log.npos || log.find("--gpu-architecture") != log.npos;
}

/// The word after `key` in NVIDIA's banner, up to a blank or the line's end.
std::string word_after(std::string_view text, std::string_view key) {
  const std::size_t at = text.find(key);
  if (at == text.npos) return "unknown";
  text.remove_prefix(at + key.size());
  return std::string(text.substr(0, text.find_first_of(" \r\n")));
}

/// The number that stands before `unit` in a line of ptxas: 320 in "320 bytes smem". 0 if the line has no
/// such unit.
int number_before(std::string_view line, std::string_view unit) {
  const std::size_t end = line.find(unit);
  if (end == line.npos) return 0;
  const std::size_t last_other = line.substr(0, end).find_last_not_of("0123456789");
  const std::size_t begin = last_other == line.npos ? 0 : last_other + 1;
  int value = 0;
  std::from_chars(line.data() + begin, line.data() + end, value);
  return value;
}

}  // namespace

PtxasReport parse_ptxas_log(std::string log) {
  PtxasReport report{.kernels = {}, .log = std::move(log)};
  constexpr std::string_view entry_mark = "Compiling entry function '";
  std::string_view rest = report.log;
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (const std::size_t at = line.find(entry_mark); at != line.npos) {
      const std::string_view name = line.substr(at + entry_mark.size());
      report.kernels.push_back({.entry = std::string(name.substr(0, name.find('\'')))});
    }
    if (report.kernels.empty()) continue;
    // An entry's lines follow its name; functions that it calls have lines of their own among them.
    KernelResources& kernel = report.kernels.back();
    kernel.registers = std::max(kernel.registers, number_before(line, " registers"));
    kernel.shared_bytes = std::max(kernel.shared_bytes, number_before(line, " bytes smem"));
    kernel.stack_bytes += number_before(line, " bytes stack frame");
    kernel.spill_store_bytes += number_before(line, " bytes spill stores");
    kernel.spill_load_bytes += number_before(line, " bytes spill loads");
  }
  return report;
}

NvrtcCompiler::NvrtcCompiler(std::shared_ptr<const NvrtcLibrary> library) : library_(std::move(library)) {}

const NvrtcLibrary& NvrtcCompiler::library() const {
  if (library_) return *library_;
  const NvrtcChoice& choice = nvrtc_choice();
  if (!choice.library) throw Error(ADAMAS_UNAVAILABLE, "compiler", "nvrtc", choice.problem);
  return *choice.library;
}

std::string NvrtcCompiler::unavailable() const { return library_ ? std::string() : nvrtc_choice().problem; }

void NvrtcCompiler::read_banner() {
  std::call_once(banner_read_, [this] {
    const NvrtcLibrary& nvrtc = library();
    Program program(nvrtc, "banner.cu", "");
    const std::string option = fmt::format("--gpu-architecture=compute_{}", nvrtc.architectures.back());
    program.check(program.compile({option}), "compiling nothing");
    const std::string ptx = program.ptx();
    build_ = word_after(ptx, "Compiler Build ID: ");
    release_ = word_after(ptx, ", V");
  });
}

std::string NvrtcCompiler::build_id() {
  read_banner();
  return build_;
}

std::string NvrtcCompiler::identity() {
  read_banner();
  return fmt::format("nvrtc {} {}", release_, build_);
}

CompileResult NvrtcCompiler::compile(const CompileRequest& request) { return compile_with(request, {}); }

PtxasReport NvrtcCompiler::ptxas_report(const CompileRequest& request) {
  return parse_ptxas_log(compile_with(request, {"--ptxas-options=-v"}).log);
}

CompileResult NvrtcCompiler::compile_with(const CompileRequest& request,
                                          std::vector<std::string> more_options) {
  const NvrtcLibrary& nvrtc = library();
  const int architecture = codegen::cuda_architecture(request.target);
  const auto& known = nvrtc.architectures;
  if (std::find(known.begin(), known.end(), architecture) == known.end())
    refuse_target(nvrtc, request.target);

  std::vector<std::string> options{"--gpu-architecture=" + request.target};
  const auto add = [&options](const std::string& option) {  // NVRTC refuses some options that come twice
    if (std::find(options.begin(), options.end(), option) == options.end()) options.push_back(option);
  };
  for (const std::string& option : request.options)
    add(option);
  for (const std::string& option : implied_options())
    add(option);
  for (const std::string& option : more_options)
    add(option);

  const std::string compiler = identity();
  const auto start = std::chrono::steady_clock::now();
  Program program(nvrtc, request.name, request.source);
  const nvrtcResult status = program.compile(options);
  CompileResult result;
  result.log = program.log();
  result.compiler = compiler;
  if (status != NVRTC_SUCCESS && refuses_architecture(result.log)) refuse_target(nvrtc, request.target);
  if (status == NVRTC_ERROR_COMPILATION || status == NVRTC_ERROR_INVALID_OPTION) {
    throw CompileError(request, compiler, std::move(options), result.log);
  }
  program.check(status, "nvrtcCompileProgram");
  result.binary = program.cubin();
  result.milliseconds =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return result;
}

std::shared_ptr<NvrtcCompiler> nvrtc_compiler() {
  static const auto compiler = std::make_shared<NvrtcCompiler>();
  return compiler;
}

}  // namespace adamas::runtime
