// Tuning: its keys, and the ranges that hold for every generator of a language. What a single kernel needs
// beyond them is the generator's to check.
#include "codegen/tuning.hpp"

#include <array>
#include <span>

#include "codegen/cuda_facts.hpp"
#include "codegen/format.hpp"
#include "codegen/generator.hpp"
#include "codegen/key_values.hpp"
#include "codegen/target.hpp"

namespace adamas::codegen {
namespace {

constexpr std::array<std::string_view, 8> kKeys{"schedule", "cluster",     "scan",    "scan_tile",
                                                "chunk",    "dense_chunk", "threads", "decode_threads"};

constexpr std::array<std::string_view, 2> kCudaSchedules{"cluster", "stages"};
constexpr std::array<std::string_view, 1> kCpuSchedules{"stages"};
constexpr std::array<int, 6> kCudaClusters{0, 1, 2, 3, 4, 8};
constexpr std::array<int, 1> kCpuClusters{0};
constexpr std::array<int, 1> kCpuDecodeThreads{0};
constexpr std::array<std::string_view, 2> kCudaScans{"popc", "bytes"};
constexpr std::array<std::string_view, 1> kCpuScans{"table"};
constexpr IntegerRange kScanTiles{64, 65536, 64};
constexpr IntegerRange kCudaChunks{kCudaTile, 4096, kCudaTile};
constexpr IntegerRange kCpuChunks{8, 4096, 8};
constexpr IntegerRange kDenseChunks{8, 65536, 8};
constexpr IntegerRange kCudaThreads{32, 512,
                                    32};  // beyond, a thread has too few registers for the largest group
constexpr std::array<int, 5> kCudaDecodeThreads{0, 64, 128, 256, 512};
constexpr IntegerRange kCpuThreads{0, 0};  // a context's threads are its own: no kernel depends on them

void read(const KeyValues& given, std::string_view key, std::string& value,
          std::span<const std::string_view> names) {
  if (const std::string* text = given.find(key)) value = names[parse_name(key, *text, names)];
}

void read(const KeyValues& given, std::string_view key, int& value, std::span<const int> choices) {
  if (const std::string* text = given.find(key)) value = parse_choice(key, *text, choices);
}

void read(const KeyValues& given, std::string_view key, int& value, IntegerRange range) {
  if (const std::string* text = given.find(key)) value = parse_integer(key, *text, range);
}

}  // namespace

Tuning Tuning::parse(std::string_view text, const Spec& spec, std::string_view target) {
  check_target(target);
  const bool cuda = is_cuda_target(target);
  const KeyValues given("Tuning", text, kKeys);
  Tuning tuning = generator_for(target).default_tuning(spec, target);
  using Names = std::span<const std::string_view>;
  read(given, "schedule", tuning.schedule, cuda ? Names(kCudaSchedules) : Names(kCpuSchedules));
  using Choices = std::span<const int>;
  read(given, "cluster", tuning.cluster, cuda ? Choices(kCudaClusters) : Choices(kCpuClusters));
  read(given, "scan", tuning.scan, cuda ? Names(kCudaScans) : Names(kCpuScans));
  read(given, "scan_tile", tuning.scan_tile, kScanTiles);
  read(given, "chunk", tuning.chunk, cuda ? kCudaChunks : kCpuChunks);
  read(given, "dense_chunk", tuning.dense_chunk, kDenseChunks);
  read(given, "threads", tuning.threads, cuda ? kCudaThreads : kCpuThreads);
  read(given, "decode_threads", tuning.decode_threads,
       cuda ? Choices(kCudaDecodeThreads) : Choices(kCpuDecodeThreads));
  return tuning;
}

std::string Tuning::text() const {
  return fmt::format(
      "schedule={} cluster={} scan={} scan_tile={} chunk={} dense_chunk={} threads={} decode_threads={}",
      schedule, cluster, scan, scan_tile, chunk, dense_chunk, threads, decode_threads);
}

}  // namespace adamas::codegen
