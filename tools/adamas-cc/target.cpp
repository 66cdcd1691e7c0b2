// Names of targets: the grammar, and the host's own description from LLVM.
#include "tools/adamas-cc/target.hpp"

#include <algorithm>
#include <utility>

#include "llvm/ADT/StringMap.h"
#include "llvm/TargetParser/Host.h"

namespace adamas::tools::cc {
namespace {

constexpr char kX86Triple[] = "x86_64-unknown-linux-gnu";
constexpr char kArmTriple[] = "aarch64-unknown-linux-gnu";

[[noreturn]] void refuse(const std::string& name) {
  throw UsageError(
      "target=" + name +
      ": must be host, x86-64[-v2|-v3|-v4|-CPU], aarch64[-CPU] or ARCH:TUNE:FEATURES with ARCH x86-64 or "
      "aarch64 and FEATURES like +avx2,+fma; --triple, --cpu and --features name any other");
}

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

Target host_target() {
  Target target{llvm::sys::getProcessTriple(), llvm::sys::getHostCPUName().str(), "", {}};
  for (const auto& feature : llvm::sys::getHostCPUFeatures()) {
    target.features.emplace_back(1, feature.second ? '+' : '-').append(feature.first().str());
  }
  std::sort(target.features.begin(), target.features.end());  // the map's own order is not a promise
  return target;
}

std::vector<std::string> split_features(const std::string& text) {
  std::vector<std::string> features;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    if (item.size() < 2 || (item[0] != '+' && item[0] != '-')) {
      throw UsageError("features=" + text + ": each item must be +name or -name; found '" + item + "'");
    }
    features.push_back(item);
    begin = end + 1;
  }
  return features;
}

Target parse_target(const std::string& name) {
  if (name == "host") return host_target();
  const bool x86 = starts_with(name, "x86-64");
  const std::size_t arch_length = x86 ? 6 : 7;
  if (!x86 && !starts_with(name, "aarch64")) refuse(name);
  const std::string rest = name.substr(arch_length);
  Target target{x86 ? kX86Triple : kArmTriple, x86 ? "x86-64" : "generic", "", {}};
  // Every aarch64 that Linux runs on has NEON; clang's front end, left to itself, believes it of no CPU.
  if (!x86) target.features.emplace_back("+neon");
  if (rest.empty()) return target;
  if (rest[0] == '-' && rest.size() > 1) {
    // The levels are CPU names of their own in LLVM: "x86-64-v3".
    const bool level = x86 && (rest == "-v2" || rest == "-v3" || rest == "-v4");
    target.cpu = level ? name : rest.substr(1);
    return target;
  }
  const std::size_t colon = rest.find(':', 1);
  if (rest[0] != ':' || colon == std::string::npos) refuse(name);
  target.tune = rest.substr(1, colon - 1);
  if (target.tune.empty()) refuse(name);
  for (std::string& feature : split_features(rest.substr(colon + 1)))
    target.features.push_back(std::move(feature));
  return target;
}

}  // namespace adamas::tools::cc
