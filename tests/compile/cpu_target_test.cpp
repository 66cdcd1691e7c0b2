// CPU targets: features from CPUID words, levels, and the host's own name.
#include "runtime/compile/cpu_target.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>

using namespace adamas::runtime;

namespace {

bool has(const std::vector<std::string>& list, const std::string& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

bool any_avx512(const std::vector<std::string>& features) {
  return std::any_of(features.begin(), features.end(),
                     [](const std::string& feature) { return feature.rfind("avx512", 0) == 0; });
}

/// A CPU that has every feature, under an operating system that saves every register.
X86Cpuid everything() {
  X86Cpuid cpuid;
  cpuid.leaf1_ecx = cpuid.leaf7_ebx = cpuid.leaf7_ecx = cpuid.leaf7_edx = ~0u;
  cpuid.leaf7_1_eax = cpuid.leaf7_1_edx = cpuid.extended1_ecx = cpuid.xcr0 = ~0u;
  return cpuid;
}

constexpr std::uint32_t kAvx512fBit = 1u << 16, kAvx2Bit = 1u << 5, kAvxBit = 1u << 28, kFmaBit = 1u << 12;

}  // namespace

TEST_CASE("cpu target: a full CPU has all levels") {
  const auto features = x86_features(everything());
  CHECK(has(features, "avx512fp16"));
  CHECK(x86_levels(features) == std::vector<std::string>{"x86-64-v4", "x86-64-v3", "x86-64-v2"});
}

TEST_CASE("cpu target: AVX-512 masked by the hypervisor is not admitted, whatever else is reported") {
  X86Cpuid cpuid = everything();
  cpuid.leaf7_ebx &= ~kAvx512fBit;  // avx512bw, vl, fp16 still claim to be there
  CHECK_FALSE(any_avx512(x86_features(cpuid)));
  CHECK(x86_levels(x86_features(cpuid)) == std::vector<std::string>{"x86-64-v3", "x86-64-v2"});
}

TEST_CASE("cpu target: registers that the operating system does not save are not used") {
  X86Cpuid cpuid = everything();
  cpuid.xcr0 = 0x7;  // x87, xmm, ymm
  CHECK_FALSE(any_avx512(x86_features(cpuid)));
  CHECK(has(x86_features(cpuid), "avx2"));
  cpuid.xcr0 = 0x3;  // x87, xmm
  CHECK_FALSE(has(x86_features(cpuid), "avx"));
  CHECK_FALSE(has(x86_features(cpuid), "avx2"));
  CHECK(x86_levels(x86_features(cpuid)) == std::vector<std::string>{"x86-64-v2"});
}

TEST_CASE("cpu target: what a feature implies must be there") {
  X86Cpuid cpuid = everything();
  cpuid.leaf1_ecx &= ~kFmaBit;  // LLVM's avx512f turns fma on
  CHECK_FALSE(any_avx512(x86_features(cpuid)));
  cpuid = everything();
  cpuid.leaf7_ebx &= ~kAvx2Bit;
  CHECK_FALSE(has(x86_features(cpuid), "avxvnni"));
  CHECK_FALSE(any_avx512(x86_features(cpuid)));
  cpuid = everything();
  cpuid.leaf1_ecx &= ~kAvxBit;
  CHECK_FALSE(has(x86_features(cpuid), "f16c"));
}

TEST_CASE("cpu target: a CPU of which nothing is known runs no level") {
  CHECK(x86_features({}).empty());
  CHECK(x86_levels({}).empty());
}

TEST_CASE("cpu target: names of CPUs") {
  CHECK(x86_tuning("AuthenticAMD", 0x19, 0x01) == "znver3");
  CHECK(x86_tuning("AuthenticAMD", 0x19, 0x11) == "znver4");
  CHECK(x86_tuning("AuthenticAMD", 0x19, 0x61) == "znver4");
  CHECK(x86_tuning("AuthenticAMD", 0x17, 0x31) == "znver2");
  CHECK(x86_tuning("GenuineIntel", 6, 0x8f) == "sapphirerapids");
  CHECK(x86_tuning("GenuineIntel", 6, 0x01) == "generic");
  CHECK(x86_tuning("HygonGenuine", 0x18, 0x01) == "generic");
}

TEST_CASE("cpu target: the host's target is exact, stable and first") {
  const std::string host = host_cpu_target();
  CHECK(host == host_cpu_target());
  CHECK(std::count(host.begin(), host.end(), ':') == 2);
  const auto targets = runnable_cpu_targets();
  REQUIRE_FALSE(targets.empty());
  CHECK(targets.front() == host);
}

#if defined(__x86_64__)
TEST_CASE("cpu target: agrees with the compiler's own detection") {
  const auto targets = runnable_cpu_targets();
  __builtin_cpu_init();
  CHECK(has(targets, "x86-64-v2") == (__builtin_cpu_supports("x86-64-v2") != 0));
  CHECK(has(targets, "x86-64-v3") == (__builtin_cpu_supports("x86-64-v3") != 0));
  CHECK(has(targets, "x86-64-v4") == (__builtin_cpu_supports("x86-64-v4") != 0));
  const std::string host = host_cpu_target() + ",";
  CHECK((host.find("+avx512f,") != host.npos) == (__builtin_cpu_supports("avx512f") != 0));
  CHECK((host.find("+avx512vnni,") != host.npos) == (__builtin_cpu_supports("avx512vnni") != 0));
  CHECK((host.find("+fma,") != host.npos) == (__builtin_cpu_supports("fma") != 0));
}
#endif
