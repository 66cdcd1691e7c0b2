// Sizes that the CUDA generator derives from Spec and Tuning.
#include "codegen/cuda_facts.hpp"

#include <algorithm>
#include <bit>

namespace adamas::codegen {
namespace {

constexpr int kWarp = 32;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// sizeof(AttendShared<heads, tokens>): queries or slices, then weights, then places.
std::int64_t attend_shared_bytes(const Spec& spec, const Tuning& tuning, int heads, int tokens) {
  constexpr std::int64_t kFloat = 4, kPlace = 8;
  const int columns = heads <= 4 ? 8 : heads <= 8 ? 4 : 2;
  const int lanes = std::min(spec.value_dim / columns, tuning.threads);
  const std::int64_t slice = heads * spec.value_dim * kFloat;
  const std::int64_t slices = std::min<std::int64_t>(
      tuning.threads / lanes, std::max<std::int64_t>(1, kCudaAttendSliceBytes / slice));
  const std::int64_t queries = heads * spec.head_dim * kFloat;
  return round_up(std::max(queries, slices * slice) + heads * tokens * kFloat + tokens * kPlace, 16);
}

}  // namespace

CudaFacts cuda_facts_of(const Spec& spec) {
  // One pass over the order keys is cheapest, as long as its histogram leaves room for several blocks a
  // processor.
  constexpr int kMostBitsOfOneDigit = 13;
  constexpr int kFewestBitsOfADigit = 5;  // a histogram row is 32 digits
  CudaFacts cuda{};
  cuda.facts = facts_of(spec);
  cuda.words = (spec.head_dim + kWarp - 1) / kWarp;
  cuda.query_planes = spec.estimator == Estimator::dot ? spec.query_bits : spec.buckets - 1;
  cuda.prepared_bytes = static_cast<int>(round_up((cuda.query_planes * cuda.words + 1) * 4, 64));
  cuda.rotate_scratch = cuda.facts.hadamard.order > 1 ? spec.head_dim : 1;
  const int key_bits = std::bit_width(static_cast<unsigned>(cuda.facts.key_forced));
  cuda.digits = key_bits <= kMostBitsOfOneDigit ? 1 : 2;
  cuda.digit_bits = std::max(kFewestBitsOfADigit, (key_bits + cuda.digits - 1) / cuda.digits);
  return cuda;
}

std::int64_t cuda_attend_shared_bytes(const Spec& spec, const Tuning& tuning) {
  const int sparse_heads = spec.group / facts_of(spec).selections_per_kv_head;
  return std::max(attend_shared_bytes(spec, tuning, sparse_heads, tuning.chunk),
                  attend_shared_bytes(spec, tuning, spec.group, tuning.dense_chunk));
}

std::int64_t cuda_shared_limit(int architecture) {
  switch (architecture) {
    case 80:
    case 87:
      return 163 * 1024;
    case 90:
    case 100:
    case 103:
      return 227 * 1024;
    default:
      return 99 * 1024;  // 86, 89, 120, and a floor for those to come
  }
}

}  // namespace adamas::codegen
