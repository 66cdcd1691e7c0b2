// The features and names of CPUs that matter to generated code, as tables.
#include "runtime/compile/cpu_target.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>

#include <cstdio>
#include <cstdlib>

#include "codegen/format.hpp"
#endif

namespace adamas::runtime {
namespace {

// XCR0 bits: the register state that the operating system saves.
constexpr std::uint32_t kXmmYmm = 0x6, kZmm = 0xe6, kNone = 0;

struct X86Feature {
  const char* name;  // LLVM's
  std::uint32_t X86Cpuid::* word;
  int bit;
  std::uint32_t state;   // all of these XCR0 bits must be set
  const char* needs[3];  // earlier features that LLVM turns on along with this one
};

// Left out: AMX, whose use a process must ask the kernel for, and what no kernel code is compiled to (AES,
// SHA, ...).
constexpr X86Feature kX86Features[] = {
    {"cx16", &X86Cpuid::leaf1_ecx, 13, kNone, {}},
    {"sahf", &X86Cpuid::extended1_ecx, 0, kNone, {}},
    {"popcnt", &X86Cpuid::leaf1_ecx, 23, kNone, {}},
    {"sse3", &X86Cpuid::leaf1_ecx, 0, kNone, {}},
    {"ssse3", &X86Cpuid::leaf1_ecx, 9, kNone, {"sse3"}},
    {"sse4.1", &X86Cpuid::leaf1_ecx, 19, kNone, {"ssse3"}},
    {"sse4.2", &X86Cpuid::leaf1_ecx, 20, kNone, {"sse4.1"}},
    {"lzcnt", &X86Cpuid::extended1_ecx, 5, kNone, {}},
    {"movbe", &X86Cpuid::leaf1_ecx, 22, kNone, {}},
    {"bmi", &X86Cpuid::leaf7_ebx, 3, kNone, {}},
    {"bmi2", &X86Cpuid::leaf7_ebx, 8, kNone, {}},
    {"avx", &X86Cpuid::leaf1_ecx, 28, kXmmYmm, {"sse4.2"}},
    {"f16c", &X86Cpuid::leaf1_ecx, 29, kXmmYmm, {"avx"}},
    {"fma", &X86Cpuid::leaf1_ecx, 12, kXmmYmm, {"avx"}},
    {"avx2", &X86Cpuid::leaf7_ebx, 5, kXmmYmm, {"avx"}},
    {"gfni", &X86Cpuid::leaf7_ecx, 8, kNone, {}},
    {"avxvnni", &X86Cpuid::leaf7_1_eax, 4, kXmmYmm, {"avx2"}},
    {"avxifma", &X86Cpuid::leaf7_1_eax, 23, kXmmYmm, {"avx2"}},
    {"avxvnniint8", &X86Cpuid::leaf7_1_edx, 4, kXmmYmm, {"avx2"}},
    {"avxvnniint16", &X86Cpuid::leaf7_1_edx, 10, kXmmYmm, {"avx2"}},
    {"avx512f", &X86Cpuid::leaf7_ebx, 16, kZmm, {"avx2", "f16c", "fma"}},
    {"avx512cd", &X86Cpuid::leaf7_ebx, 28, kZmm, {"avx512f"}},
    {"avx512bw", &X86Cpuid::leaf7_ebx, 30, kZmm, {"avx512f"}},
    {"avx512dq", &X86Cpuid::leaf7_ebx, 17, kZmm, {"avx512f"}},
    {"avx512vl", &X86Cpuid::leaf7_ebx, 31, kZmm, {"avx512f"}},
    {"avx512ifma", &X86Cpuid::leaf7_ebx, 21, kZmm, {"avx512f"}},
    {"avx512vbmi", &X86Cpuid::leaf7_ecx, 1, kZmm, {"avx512bw"}},
    {"avx512vbmi2", &X86Cpuid::leaf7_ecx, 6, kZmm, {"avx512bw"}},
    {"avx512vnni", &X86Cpuid::leaf7_ecx, 11, kZmm, {"avx512f"}},
    {"avx512bitalg", &X86Cpuid::leaf7_ecx, 12, kZmm, {"avx512bw"}},
    {"avx512vpopcntdq", &X86Cpuid::leaf7_ecx, 14, kZmm, {"avx512f"}},
    {"avx512bf16", &X86Cpuid::leaf7_1_eax, 5, kZmm, {"avx512bw"}},
    {"avx512fp16", &X86Cpuid::leaf7_edx, 23, kZmm, {"avx512bw", "avx512dq", "avx512vl"}},
};

struct X86Level {
  const char* name;
  std::vector<std::string_view> adds;  // to the level before
};

const X86Level kX86Levels[] = {
    {"x86-64-v2", {"cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"}},
    {"x86-64-v3", {"lzcnt", "movbe", "bmi", "bmi2", "avx", "f16c", "fma", "avx2"}},
    {"x86-64-v4", {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}},
};

struct X86Model {
  char vendor;  // 'I'ntel or 'A'MD
  unsigned family, first, last;
  const char* name;
};

// First match wins.
constexpr X86Model kX86Models[] = {
    {'A', 0x17, 0x30, 0xff, "znver2"},      {'A', 0x17, 0x00, 0x2f, "znver1"},
    {'A', 0x19, 0x10, 0x1f, "znver4"},      {'A', 0x19, 0x60, 0xaf, "znver4"},
    {'A', 0x19, 0x00, 0xff, "znver3"},      {'A', 0x1a, 0x00, 0xff, "znver5"},
    {'I', 6, 0x3c, 0x3c, "haswell"},        {'I', 6, 0x3f, 0x3f, "haswell"},
    {'I', 6, 0x45, 0x46, "haswell"},        {'I', 6, 0x3d, 0x3d, "broadwell"},
    {'I', 6, 0x47, 0x47, "broadwell"},      {'I', 6, 0x4f, 0x4f, "broadwell"},
    {'I', 6, 0x56, 0x56, "broadwell"},      {'I', 6, 0x4e, 0x4e, "skylake"},
    {'I', 6, 0x5e, 0x5e, "skylake"},        {'I', 6, 0x8e, 0x8e, "skylake"},
    {'I', 6, 0x9e, 0x9e, "skylake"},        {'I', 6, 0xa5, 0xa6, "skylake"},
    {'I', 6, 0x55, 0x55, "skylake-avx512"}, {'I', 6, 0x7d, 0x7e, "icelake-client"},
    {'I', 6, 0x6a, 0x6a, "icelake-server"}, {'I', 6, 0x6c, 0x6c, "icelake-server"},
    {'I', 6, 0x8c, 0x8d, "tigerlake"},      {'I', 6, 0xa7, 0xa7, "rocketlake"},
    {'I', 6, 0x97, 0x97, "alderlake"},      {'I', 6, 0x9a, 0x9a, "alderlake"},
    {'I', 6, 0xb7, 0xb7, "raptorlake"},     {'I', 6, 0xba, 0xba, "raptorlake"},
    {'I', 6, 0xbf, 0xbf, "raptorlake"},     {'I', 6, 0xaa, 0xaa, "meteorlake"},
    {'I', 6, 0x8f, 0x8f, "sapphirerapids"}, {'I', 6, 0xcf, 0xcf, "emeraldrapids"},
    {'I', 6, 0xad, 0xad, "graniterapids"},
};

bool contains(const std::vector<std::string>& list, std::string_view item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

[[maybe_unused]] std::string target_text(const char* arch, const std::string& tuning,
                                         const std::vector<std::string>& features) {
  std::vector<std::string> signed_features;
  for (const std::string& feature : features)
    signed_features.push_back("+" + feature);
  return fmt::format("{}:{}:{}", arch, tuning, fmt::join(signed_features, ","));
}

#if defined(__x86_64__)

struct Host {
  X86Cpuid cpuid;
  std::string tuning;
};

Host read_host() {
  Host host;
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
  __get_cpuid(0, &a, &b, &c, &d);
  char vendor[13] = {};
  std::memcpy(vendor, &b, 4);
  std::memcpy(vendor + 4, &d, 4);
  std::memcpy(vendor + 8, &c, 4);

  X86Cpuid& cpuid = host.cpuid;
  if (__get_cpuid(1, &a, &b, &c, &d)) {
    const unsigned base_family = (a >> 8) & 15, base_model = (a >> 4) & 15;
    const unsigned family = base_family == 15 ? base_family + ((a >> 20) & 255) : base_family;
    host.tuning = x86_tuning(vendor, family, base_model | ((a >> 12) & 0xf0));
    cpuid.leaf1_ecx = c;
    constexpr std::uint32_t kOsXsave = 1u << 27;
    if (c & kOsXsave) {
      std::uint32_t high;
      __asm__("xgetbv" : "=a"(cpuid.xcr0), "=d"(high) : "c"(0));
    }
  }
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    cpuid.leaf7_ebx = b;
    cpuid.leaf7_ecx = c;
    cpuid.leaf7_edx = d;
    const std::uint32_t subleaves = a;
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
      cpuid.leaf7_1_eax = a;
      cpuid.leaf7_1_edx = d;
    }
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d)) cpuid.extended1_ecx = c;
  return host;
}

#elif defined(__aarch64__)

struct ArmFeature {
  const char* name;
  unsigned long hwcap, hwcap2;  // all of these bits
};

// Bits of the kernel's HWCAP words, which are fixed; older system headers lack the newer names.
constexpr ArmFeature kArmFeatures[] = {
    {"crc", 1ul << 7, 0},
    {"lse", 1ul << 8, 0},
    {"rdm", 1ul << 12, 0},
    {"fullfp16", 1ul << 9 | 1ul << 10, 0},  // FPHP and ASIMDHP
    {"dotprod", 1ul << 20, 0},
    {"fp16fml", 1ul << 23 | 1ul << 9 | 1ul << 10, 0},
    {"sve", 1ul << 22 | 1ul << 9 | 1ul << 10, 0},
    {"sve2", 1ul << 22 | 1ul << 9 | 1ul << 10, 1ul << 1},
    {"i8mm", 0, 1ul << 13},
    {"bf16", 0, 1ul << 14},
};

struct ArmModel {
  unsigned implementer, part;
  const char* name;
};

constexpr ArmModel kArmModels[] = {
    {0x41, 0xd08, "cortex-a72"},  {0x41, 0xd0b, "cortex-a76"},  {0x41, 0xd0c, "neoverse-n1"},
    {0x41, 0xd40, "neoverse-v1"}, {0x41, 0xd49, "neoverse-n2"}, {0x41, 0xd4f, "neoverse-v2"},
    {0xc0, 0xac3, "ampere1"},     {0xc0, 0xac4, "ampere1a"},
};

/// From the identification register, which Linux publishes as a file.
std::string arm_tuning() {
  unsigned long long midr = 0;
  if (FILE* file = std::fopen("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "re")) {
    char text[32] = {};
    if (std::fgets(text, sizeof text, file)) midr = std::strtoull(text, nullptr, 16);
    std::fclose(file);
  }
  for (const ArmModel& model : kArmModels) {
    if (model.implementer == ((midr >> 24) & 0xff) && model.part == ((midr >> 4) & 0xfff)) return model.name;
  }
  return "generic";
}

std::vector<std::string> arm_features() {
  const unsigned long hwcap = getauxval(AT_HWCAP), hwcap2 = getauxval(AT_HWCAP2);
  std::vector<std::string> features;
  for (const ArmFeature& feature : kArmFeatures) {
    if ((hwcap & feature.hwcap) == feature.hwcap && (hwcap2 & feature.hwcap2) == feature.hwcap2) {
      features.push_back(feature.name);
    }
  }
  return features;
}

#endif

}  // namespace

std::vector<std::string> x86_features(const X86Cpuid& cpuid) {
  std::vector<std::string> features;
  for (const X86Feature& feature : kX86Features) {
    const bool present = (cpuid.*feature.word >> feature.bit) & 1;
    const bool saved = (cpuid.xcr0 & feature.state) == feature.state;
    const bool complete = std::all_of(std::begin(feature.needs), std::end(feature.needs),
                                      [&](const char* need) { return !need || contains(features, need); });
    if (present && saved && complete) features.push_back(feature.name);
  }
  return features;
}

std::vector<std::string> x86_levels(const std::vector<std::string>& features) {
  std::vector<std::string> levels;
  for (const X86Level& level : kX86Levels) {
    const bool all = std::all_of(level.adds.begin(), level.adds.end(),
                                 [&](std::string_view feature) { return contains(features, feature); });
    if (!all) break;
    levels.insert(levels.begin(), level.name);
  }
  return levels;
}

std::string x86_tuning(const std::string& vendor, unsigned family, unsigned model) {
  const char initial = vendor == "GenuineIntel" ? 'I' : vendor == "AuthenticAMD" ? 'A' : '?';
  for (const X86Model& known : kX86Models) {
    if (known.vendor == initial && known.family == family && known.first <= model && model <= known.last) {
      return known.name;
    }
  }
  return "generic";
}

std::string host_cpu_target() {
#if defined(__x86_64__)
  const Host host = read_host();
  return target_text("x86-64", host.tuning, x86_features(host.cpuid));
#elif defined(__aarch64__)
  return target_text("aarch64", arm_tuning(), arm_features());
#else
#error "adamas runs on x86-64 and aarch64"
#endif
}

std::vector<std::string> runnable_cpu_targets() {
  std::vector<std::string> targets = {host_cpu_target()};
#if defined(__x86_64__)
  for (std::string& level : x86_levels(x86_features(read_host().cpuid)))
    targets.push_back(std::move(level));
#else
  targets.push_back("aarch64");
#endif
  return targets;
}

}  // namespace adamas::runtime
