// Patterns of target names. Whether a compiler knows a GPU architecture or a CPU is for the compiler to say.
#include "codegen/target.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::codegen {
namespace {

constexpr std::string_view kCudaPrefix = "sm_";
constexpr int kOldestCuda = 80;  // asynchronous copies, bfloat16
constexpr int kNewestCuda = 999;

bool is_lower_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

/// A CPU or feature name of LLVM: "znver4", "sapphirerapids", "sse4.2", "avx10.1-512".
bool is_llvm_name(std::string_view text) {
  return !text.empty() && is_lower_or_digit(text.front()) && std::ranges::all_of(text, [](char c) {
    return is_lower_or_digit(c) || c == '.' || c == '-' || c == '_';
  });
}

/// "+avx2,-avx512f", or nothing.
bool is_feature_list(std::string_view text) {
  if (text.empty()) return true;
  for (std::size_t at = 0;;) {
    const std::size_t comma = std::min(text.find(',', at), text.size());
    const std::string_view item = text.substr(at, comma - at);
    if (item.size() < 2 || (item[0] != '+' && item[0] != '-') || !is_llvm_name(item.substr(1))) return false;
    if (comma == text.size()) return true;
    at = comma + 1;
  }
}

/// What follows the architecture in a CPU target: nothing, "-CPU", or ":TUNE:FEATURES".
bool is_cpu_suffix(std::string_view rest) {
  if (rest.empty()) return true;
  if (rest.front() == '-') return is_llvm_name(rest.substr(1));
  const std::size_t colon = rest.find(':', 1);
  return rest.front() == ':' && colon != rest.npos && is_llvm_name(rest.substr(1, colon - 1)) &&
         is_feature_list(rest.substr(colon + 1));
}

bool is_cpu_target(std::string_view target) {
  constexpr std::string_view x86 = "x86-64";
  constexpr std::string_view arm = "aarch64";
  if (target.starts_with(arm)) return is_cpu_suffix(target.substr(arm.size()));
  if (!target.starts_with(x86)) return false;
  const std::string_view rest = target.substr(x86.size());
  // "v5" would pass for the name of a CPU: of what looks like a level, only the levels there are.
  const bool level = rest.size() == 3 && rest.starts_with("-v");
  return level ? rest[2] >= '2' && rest[2] <= '4' : is_cpu_suffix(rest);
}

/// Architecture of "sm_90a", or 0 where the text is no such name. The suffixes: a = this architecture only,
/// f = its family.
int architecture_in(std::string_view target) {
  if (!is_cuda_target(target)) return 0;
  const std::string_view digits = target.substr(kCudaPrefix.size());
  int architecture = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, status] = std::from_chars(digits.data(), end, architecture);
  const std::string_view suffix(stop, static_cast<std::size_t>(end - stop));
  const bool named = status == std::errc{} && (suffix.empty() || suffix == "a" || suffix == "f");
  return named && digits.front() != '0' && architecture <= kNewestCuda ? architecture : 0;
}

[[noreturn]] void refuse_target(std::string_view target, std::string rule) {
  throw Error(ADAMAS_INVALID_SPEC, "target", std::string(target), std::move(rule),
              fmt::format("known targets: {}", fmt::join(known_targets(), ", ")));
}

}  // namespace

bool is_cuda_target(std::string_view target) { return target.starts_with(kCudaPrefix); }

void check_target(std::string_view target) {
  if (target == "host") {
    throw Error(ADAMAS_INTERNAL, "target", "host",
                "must be resolved to a CPU's own name before code is generated");
  }
  if (is_cuda_target(target)) {
    cuda_architecture(target);
  } else if (!is_cpu_target(target)) {
    refuse_target(target,
                  "is no target: must be sm_NN[a|f], x86-64[-v2|-v3|-v4|-CPU], aarch64[-CPU] or "
                  "ARCH:TUNE:FEATURES");
  }
}

const std::vector<std::string>& known_targets() {
  static const std::vector<std::string> names{"sm_80",     "sm_86",     "sm_89",   "sm_90",
                                              "sm_90a",    "sm_100a",   "sm_120",  "x86-64-v2",
                                              "x86-64-v3", "x86-64-v4", "aarch64", "host"};
  return names;
}

int cuda_architecture(std::string_view target) {
  const int architecture = architecture_in(target);
  if (architecture == 0) refuse_target(target, "is no CUDA target: must be sm_NN, sm_NNa or sm_NNf");
  if (architecture < kOldestCuda) {
    refuse_target(target, fmt::format("is too old a GPU: must be sm_{} or newer", kOldestCuda));
  }
  return architecture;
}

}  // namespace adamas::codegen
