// Sizes that the CUDA generator derives from Spec and Tuning.
#include "codegen/cuda_facts.hpp"

#include <algorithm>
#include <bit>

#include "codegen/round.hpp"

namespace adamas::codegen {
namespace {

constexpr int kWarp = 32;

/// sizeof(DenseShared) of dense_chunk.cuh: queries or slices, then weights, then places.
std::int64_t dense_chunk_bytes(const Spec& spec, const Tuning& tuning) {
  constexpr std::int64_t kFloat = 4;
  const std::int64_t place = spec.tables == Tables::split ? 12 : 8;
  const std::int64_t passes = ceil_div(spec.group, kCudaMostHeadsAtOnce),
                     heads_at_once = ceil_div(spec.group, passes);
  const int columns = heads_at_once <= 4 ? 8 : 4;
  const int slices = tuning.threads / std::min(spec.value_dim / columns, tuning.threads);
  const std::int64_t queries = heads_at_once * spec.head_dim * kFloat;
  const std::int64_t sums = slices * heads_at_once * spec.value_dim * kFloat;
  return round_up(
      std::max(queries, sums) + heads_at_once * tuning.dense_chunk * kFloat + tuning.dense_chunk * place, 16);
}

/// Shared memory for half a tile: 16 rows of K or V, which begin in different banks.
std::int64_t half_tile_bytes(const Spec& spec) {
  return 16 * (std::max(spec.head_dim, spec.value_dim) * 2 + 16);
}

/// sizeof(DenseShared) of dense_tiles.cuh: rings or sums, then where the rows of two tiles a warp are.
std::int64_t dense_tiles_bytes(const Spec& spec, const CudaDenseTiles& tiles) {
  const std::int64_t rings = tiles.warps * tiles.slots * half_tile_bytes(spec);
  const std::int64_t sums = std::int64_t{tiles.warps} * tiles.head_tiles * 8 * (spec.value_dim + 2) * 4;
  return round_up(std::max(rings, sums), 16) + std::int64_t{tiles.warps} * 2 * kCudaTile * 16;
}

/// sizeof(ListShared): queries, then the sums of tiles.
std::int64_t list_chunk_bytes(const Spec& spec, const Tuning& tuning) {
  const CudaFacts cuda = cuda_facts_of(spec);
  const std::int64_t tiles = std::int64_t{cuda.list_heads_at_once} * (tuning.chunk / kCudaTile);
  return cuda.pass_query_bytes + tiles * cuda_shared_partial_bytes(spec);
}

/// Words of each plane that are scored together: all of them in rows of ordinary width, else a divisor of
/// their number.
int words_at_once(int planes, int words) {
  constexpr int kMostWordsInRegisters = 16;
  if (planes * words <= kMostWordsInRegisters) return words;
  return words % 4 == 0 ? 4 : words % 2 == 0 ? 2 : words % 3 == 0 ? 3 : 1;
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
  cuda.words_at_once = words_at_once(cuda.facts.code_bits, cuda.words);
  cuda.query_planes = spec.estimator == Estimator::dot ? spec.query_bits : spec.buckets - 1;
  cuda.prepared_bytes = static_cast<int>(round_up((cuda.query_planes * cuda.words + 1) * 4, 64));
  constexpr int kMostListHeadsAtOnce = 4;  // sums of more would not fit the registers
  cuda.list_heads = spec.group / cuda.facts.selections_per_kv_head;
  cuda.list_passes = static_cast<int>(ceil_div(cuda.list_heads, kMostListHeadsAtOnce));
  cuda.list_heads_at_once = static_cast<int>(ceil_div(cuda.list_heads, cuda.list_passes));
  // Upper parts, and lower ones where a query is not of the type that K is multiplied in; then factors.
  const ElementType product = spec.kv_type == ElementType::bf16 ? ElementType::bf16 : ElementType::f16;
  const int parts = spec.q_type == product ? 1 : 2;
  cuda.pass_query_bytes =
      static_cast<int>(round_up(cuda.list_heads_at_once * (parts * spec.head_dim * 2 + 4), 16));
  cuda.rotate_scratch = cuda.facts.hadamard.order > 1 ? 2 * spec.head_dim : 1;
  // More would leave too few warps a multiprocessor, fewer make more of the transform cross lanes.
  constexpr int kMostLaneElements = 64;
  const bool in_lanes = cuda.facts.hadamard.order == 1 && spec.head_dim % kWarp == 0 &&
                        std::has_single_bit(static_cast<unsigned>(cuda.words)) && cuda.words <= kWarp &&
                        spec.kv_type != ElementType::f32;
  cuda.lane_elements = in_lanes ? std::min(spec.head_dim, kMostLaneElements) : 0;
  cuda.slots_per_warp = in_lanes ? kWarp * cuda.lane_elements / spec.head_dim : 4;
  cuda.encode_blocks = in_lanes ? 4 : 1;
  // Two stages a warp, of all lanes' elements: they begin in different banks.
  const int element_bytes = spec.kv_type == ElementType::f8e4m3fn ? 1 : 2;
  cuda.encode_shared_bytes =
      in_lanes ? kCudaEncodeThreads * 2 * (cuda.lane_elements * element_bytes + 16) : 0;
  const int key_bits = std::bit_width(static_cast<unsigned>(cuda.facts.key_forced));
  cuda.digits = key_bits <= kMostBitsOfOneDigit ? 1 : 2;
  cuda.digit_bits = std::max(kFewestBitsOfADigit, (key_bits + cuda.digits - 1) / cuda.digits);
  return cuda;
}

CudaDenseTiles cuda_dense_tiles(const Spec& spec, const Tuning& tuning) {
  const bool fits_registers = spec.head_dim <= 256 && spec.value_dim <= 256;
  const bool is_16_bit = spec.kv_type == ElementType::f16 || spec.kv_type == ElementType::bf16;
  if (!fits_registers || !is_16_bit || spec.q_type != spec.kv_type) return {};
  // Two blocks a multiprocessor where it has 227 KB, one where it has 99.
  constexpr std::int64_t kRings = 72 * 1024;
  const std::int64_t half_tile = half_tile_bytes(spec);
  CudaDenseTiles tiles{.warps = tuning.threads / kWarp, .slots = 0, .head_tiles = 1};
  while (tiles.warps > 1 && 2 * tiles.warps * half_tile > kRings)
    tiles.warps /= 2;
  tiles.slots = static_cast<int>(std::clamp<std::int64_t>(kRings / (tiles.warps * half_tile), 2, 4));
  if (spec.group > 8 && spec.head_dim <= 128 && spec.value_dim <= 128) tiles.head_tiles = 2;
  return tiles;
}

int cuda_least_dense_chunk(const Tuning& tuning) {
  constexpr int kWorthABlock = 512;
  return std::min(tuning.dense_chunk, kWorthABlock);
}

int cuda_dense_chunk_step(const Tuning& tuning) {
  return std::min(tuning.dense_chunk, tuning.threads / kWarp * kCudaTile);
}

std::int64_t cuda_dense_chunks(const Tuning& tuning, int kv_heads, std::int64_t tokens) {
  // What dense_chunk_tokens of templates/cuda/partial.cuh cuts is the longest chunk, or a share of the blocks
  // or more, or the shortest.
  const std::int64_t shares =
      std::min(ceil_div(kCudaDenseBlocks, kv_heads), ceil_div(tokens, cuda_least_dense_chunk(tuning)));
  return std::max(shares, ceil_div(tokens, tuning.dense_chunk));
}

std::int64_t cuda_shared_partial_bytes(const Spec& spec) {
  // Sums, then the largest logit and the sum of weights, in whole vectors of 16 bytes.
  return (spec.value_dim + 4) * 4;
}

std::int64_t cuda_attend_shared_bytes(const Spec& spec, const Tuning& tuning) {
  const CudaDenseTiles tiles = cuda_dense_tiles(spec, tuning);
  const std::int64_t dense =
      tiles.warps > 0 ? dense_tiles_bytes(spec, tiles) : dense_chunk_bytes(spec, tuning);
  return std::max(dense, list_chunk_bytes(spec, tuning));
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
