// Tuning: its keys, and the ranges that hold for every generator of a language. What a single kernel needs
// beyond them is the generator's to check.
#include "codegen/tuning.hpp"

#include <fmt/format.h>

#include <array>

#include "codegen/generator.hpp"
#include "codegen/key_values.hpp"
#include "codegen/target.hpp"

namespace adamas::codegen {
namespace {

constexpr std::array<std::string_view, 5> kKeys{"scan", "scan_tile", "chunk", "dense_chunk", "threads"};

constexpr std::array<std::string_view, 1> kCudaScans{"popc"};
constexpr std::array<std::string_view, 1> kCpuScans{"table"};
constexpr IntegerRange kScanTiles{64, 65536, 64};
constexpr IntegerRange kChunks{8, 4096, 8};
constexpr IntegerRange kDenseChunks{8, 65536, 8};
constexpr IntegerRange kCudaThreads{32, 1024, 32};
constexpr IntegerRange kCpuThreads{0, 0};  // a context's threads are its own: no kernel depends on them

void read(const KeyValues& given, std::string_view key, int& value, IntegerRange range) {
  if (const std::string* text = given.find(key)) value = parse_integer(key, *text, range);
}

}  // namespace

Tuning Tuning::parse(std::string_view text, const Spec& spec, std::string_view target) {
  check_target(target);
  const bool cuda = is_cuda_target(target);
  const KeyValues given("Tuning", text, kKeys);
  Tuning tuning = generator_for(target).default_tuning(spec, target);
  if (const std::string* scan = given.find("scan")) {
    const std::span<const std::string_view> names = cuda ? kCudaScans : kCpuScans;
    tuning.scan = names[parse_name("scan", *scan, names)];
  }
  read(given, "scan_tile", tuning.scan_tile, kScanTiles);
  read(given, "chunk", tuning.chunk, kChunks);
  read(given, "dense_chunk", tuning.dense_chunk, kDenseChunks);
  read(given, "threads", tuning.threads, cuda ? kCudaThreads : kCpuThreads);
  return tuning;
}

std::string Tuning::text() const {
  return fmt::format("scan={} scan_tile={} chunk={} dense_chunk={} threads={}", scan, scan_tile, chunk,
                     dense_chunk, threads);
}

}  // namespace adamas::codegen
