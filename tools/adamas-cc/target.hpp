// Names of targets, and what each means to LLVM: triple, CPU, tuning and features.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace adamas::tools::cc {

struct Target {
  std::string triple;
  std::string cpu;                    ///< whose features are the base
  std::string tune;                   ///< whose timings are assumed; empty: those of cpu
  std::vector<std::string> features;  ///< "+avx2", "-avx512f", added to the base in this order
};

/// Wrong use of the command line: exit status 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The machine this runs on: CPU name and the full feature list, both signs. The CPU name alone is not
/// enough, since a hypervisor can mask features that the name implies.
Target host_target();

/// @param name  host
///            | x86-64, x86-64-v2, x86-64-v3, x86-64-v4, or x86-64-CPU
///            | aarch64 or aarch64-CPU
///            | ARCH:TUNE:FEATURES, where FEATURES is the whole list above the architecture's baseline
///            ("+avx,+fma")
/// @throws UsageError  names the grammar
Target parse_target(const std::string& name);

/// Splits "+avx,+fma,-avx2".
/// @throws UsageError  an item without a sign
std::vector<std::string> split_features(const std::string& text);

}  // namespace adamas::tools::cc
