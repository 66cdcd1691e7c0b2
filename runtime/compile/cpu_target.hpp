// Names of the CPU targets this machine can run, found without a compiler: a machine that has none must still
// be able to look up what another has built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace adamas::runtime {

/// The exact target of this machine: "x86-64:znver3:+sse3,...,+avx2" (architecture, CPU whose timings are
/// assumed, every usable feature above the architecture's baseline). It is what gets compiled, and it is the
/// cache's key.
std::string host_cpu_target();

/// All targets whose code this machine can run, best first: host_cpu_target(), then those of x86-64-v4,
/// x86-64-v3, x86-64-v2 that its features include; on aarch64, the baseline "aarch64".
std::vector<std::string> runnable_cpu_targets();

/// What CPUID and XGETBV say about an x86 CPU, as far as code generation cares.
struct X86Cpuid {
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0;
  std::uint32_t leaf7_1_eax = 0, leaf7_1_edx = 0;
  std::uint32_t extended1_ecx = 0;  // leaf 0x80000001
  std::uint32_t xcr0 = 0;           // register state the operating system saves; 0 without OSXSAVE
};

/// Usable features above baseline x86-64, in LLVM's names, in a fixed order. A feature counts only if the
/// operating system saves its registers and all that LLVM takes it to imply is usable too (hypervisors mask
/// AVX-512 piecemeal).
std::vector<std::string> x86_features(const X86Cpuid& cpuid);

/// The levels among x86-64-v4, x86-64-v3, x86-64-v2 whose features are all in the list, highest first.
std::vector<std::string> x86_levels(const std::vector<std::string>& features);

/// LLVM's name for an Intel or AMD CPU, "generic" if unknown. Names timings only, never features.
std::string x86_tuning(const std::string& vendor, unsigned family, unsigned model);

}  // namespace adamas::runtime
