// Sizes and grids of the decode kernel. See cuda_decode.hpp.
#include "codegen/cuda_decode.hpp"

#include <algorithm>

#include "codegen/cuda_facts.hpp"
#include "codegen/round.hpp"
#include "codegen/target.hpp"

namespace adamas::codegen {
namespace {

constexpr int kWarp = 32;
constexpr int kMostBlocks = 8;  // of a cluster; more is not portable
// 3 is for 32 K/V heads: 30 clusters of 4 run at once on an H100, one of 3 for each head does.
constexpr int kClusters[]{1, 2, 3, 4, 8};
constexpr int kMostLists = 8;   // of a K/V head: beyond, scores of useful lengths do not fit
constexpr int kMostDims = 512;  // K and V elements of a token that a warp can have on their way
constexpr int kMostBudget = 1024;
constexpr int kBins = 256;
constexpr int kExcesses = 128;
constexpr int kBankRow = 128;  // bytes: what shared memory writes at once
constexpr int kMostPieceBytes = 2048;
constexpr int kRingStages[]{4, 2, 1};  // of a warp's ring
// Codes on their way at once, on all multiprocessors: enough to hide the latency of memory. With more, some
// multiprocessors get more of its bandwidth than others, and all wait for the last.
constexpr std::int64_t kBytesInFlight = std::int64_t{3} << 20;
constexpr int kSliceGrain = 64;
constexpr std::int64_t kMostSlice = 131072;  // tokens; a candidate says which one in 17 bits

/// Selections of a K/V head, the query heads of each, and what they take in passes.
struct Lists {
  int selections, heads, padded_heads, chunks;
};

Lists lists_of(const Spec& spec, const Tuning& tuning) {
  const CudaFacts cuda = cuda_facts_of(spec);
  return {.selections = cuda.facts.selections_per_kv_head,
          .heads = cuda.list_heads,
          .padded_heads = cuda.list_passes * cuda.list_heads_at_once,
          .chunks = static_cast<int>(ceil_div(spec.budget, tuning.chunk))};
}

/// Chunks of a row's lists that a block attends to where `blocks` of them answer a row.
std::int64_t chunks_of_block(const Spec& spec, const Tuning& tuning, int blocks) {
  const Lists lists = lists_of(spec, tuning);
  return ceil_div(std::int64_t{lists.selections} * lists.chunks, blocks);
}

/// Dynamic shared memory of a block that attends to `items` chunks, without the rings; see rings_of_block.
std::int64_t launch_bytes(const Spec& spec, const Tuning& tuning, std::int64_t slice, std::int64_t items) {
  const CudaDecode decode = cuda_decode_of(spec, tuning);
  const Lists lists = lists_of(spec, tuning);
  // Scores, and the largest of each piece.
  const std::int64_t scores =
      lists.selections * (round_up((slice + slice / decode.piece) * decode.score_bytes, 128) + 32);
  const std::int64_t tiles =
      items * lists.heads * (tuning.chunk / kCudaTile) * cuda_shared_partial_bytes(spec);
  return decode.shared_bytes + items * tuning.chunk * 4 + round_up(std::max(scores, tiles), kBankRow);
}

/// Blocks of the smallest part of a cluster of `blocks` that answers a short row, where there are more
/// clusters than run at once: what every block does once, however few tokens it has, then costs more than
/// sharing saves.
/// @param room  bytes that launch_bytes may have
int smallest_part(const Spec& spec, const Tuning& tuning, std::int64_t slice, int blocks, std::int64_t room) {
  // With more, attention takes longer than is saved (32/8 heads, budget 128: a part of 2 blocks is best).
  constexpr std::int64_t kMostListed = 256;
  int smallest = blocks;
  for (int part = blocks / 2; part >= 1 && blocks % part == 0; part /= 2) {
    const std::int64_t chunks = chunks_of_block(spec, tuning, part);
    if (chunks * tuning.chunk > kMostListed || launch_bytes(spec, tuning, slice, chunks) > room) break;
    smallest = part;
  }
  return smallest;
}

}  // namespace

CudaDecode cuda_decode_of(const Spec& spec, const Tuning& tuning) {
  const CudaFacts cuda = cuda_facts_of(spec);
  const Lists lists = lists_of(spec, tuning);
  const int warps = tuning.decode_threads / kWarp;
  CudaDecode decode{};
  decode.terms = spec.estimator == Estimator::dot ? (spec.query_bits + 1) / 2 : spec.buckets - 1;
  // Rows of 4 or 8 bytes share 16 with others, longer ones begin with 16 of their own.
  const int token_bytes = cuda.facts.code_bits *
                          static_cast<int>(cuda.words <= 2 ? cuda.words * 4 : round_up(cuda.words * 4, 16));
  decode.piece = 64;
  while (decode.piece > 16 && decode.piece * token_bytes > kMostPieceBytes)
    decode.piece /= 2;
  decode.piece_bytes = decode.piece * token_bytes;
  decode.key_steps = static_cast<int>(ceil_div(cuda.words, 4));
  const bool large = spec.budget > 128 && spec.budget <= 256;
  decode.maxima_words = std::max(large ? 512 : 256, warps * kMostBlocks);
  // What 8 blocks send of a list: histograms and a block's own, or all candidates of a burst in one of them.
  const std::int64_t candidates = spec.budget <= 256 ? kMostBlocks * (spec.budget + 32) : 0;
  decode.inbox_words = static_cast<int>(
      ceil_div(std::max<std::int64_t>(kMostBlocks * kBins / 2 + kBins - kExcesses, candidates), 24) * 24 +
      kExcesses);
  // Two 16-bit scores are compared at once by their spare top bits.
  decode.score_bytes = cuda.facts.key_forced + 2 < (1 << 15) ? 2 : 4;
  decode.blocks_per_processor = tuning.decode_threads <= 256 ? 2 : 1;

  const std::int64_t s = lists.selections;
  std::int64_t bytes = s * decode.inbox_words * 4;
  bytes += std::int64_t{spec.group} * 2 * decode.terms * decode.key_steps * 16;      // columns
  bytes += s * cuda.list_passes * cuda.pass_query_bytes;                             // queries
  bytes += s * lists.padded_heads * lists.chunks * cuda_shared_partial_bytes(spec);  // partials
  bytes += s * decode.maxima_words * 4;
  bytes += s * (spec.budget <= 256 ? decode.maxima_words : 4) * 4;  // entries
  bytes += s * kMostBlocks * 4;                                     // counts of blocks
  const int list_warps = std::max(1, warps / lists.selections);
  bytes = round_up(bytes, 8) + 88;                // kept
  bytes += 4 * 4 + s * (list_warps + 1 + 2) * 4;  // shares; candidates: counts, thresholds
  bytes = round_up(bytes, 8);
  bytes += 6 * 8;                                            // mailboxes
  bytes += s * 7 * 4 + s * list_warps * 4 + spec.group * 4;  // searches, counts, biases
  bytes += std::int64_t{warps} * cuda.rotate_scratch * 4;
  decode.shared_bytes = round_up(bytes, kBankRow);
  return decode;
}

bool has_cuda_decode(const Spec& spec, const Tuning& tuning, std::string_view target) {
  return tuning.schedule == "cluster" && cuda_architecture(target) >= 90 &&
         facts_of(spec).selections_per_kv_head <= kMostLists && spec.head_dim + spec.value_dim <= kMostDims &&
         spec.budget <= kMostBudget;
}

std::optional<Grid> cuda_decode_grid(const Spec& spec, const Tuning& tuning, std::string_view target,
                                     const Shape& shape) {
  if (!has_cuda_decode(spec, tuning, target)) return std::nullopt;
  const std::int64_t rows = std::int64_t{shape.batch} * spec.query_rows;
  if (rows > 65535 || shape.kv_heads > 65535) return std::nullopt;
  const CudaDecode decode = cuda_decode_of(spec, tuning);
  const std::int64_t limit = cuda_shared_limit(cuda_architecture(target));
  std::optional<Grid> best;
  for (const int blocks : kClusters) {
    if (tuning.cluster != 0 && tuning.cluster != blocks) continue;
    // Slices begin at multiples of the grain, wherever the row does.
    const std::int64_t slice = ceil_div(ceil_div(shape.max_tokens, kSliceGrain) + 1, blocks) * kSliceGrain;
    std::int64_t bytes = launch_bytes(spec, tuning, slice, chunks_of_block(spec, tuning, blocks));
    const std::int64_t stage_bytes = std::int64_t{tuning.decode_threads / kWarp} * decode.piece_bytes;
    // Blocks that may share a multiprocessor do so if the shortest rings allow it: while one selects, the
    // other scans. The system keeps 1 KB of each.
    constexpr std::int64_t kReserved = 1024;
    const std::int64_t part = (limit + kReserved) / decode.blocks_per_processor - kReserved;
    const bool share = bytes + stage_bytes <= part;
    const std::int64_t places = shape.processors * (share ? decode.blocks_per_processor : 1);
    const std::int64_t in_flight = std::min(rows * shape.kv_heads * blocks, places) * stage_bytes;
    const auto stages = std::ranges::find_if(kRingStages, [&](int count) {
      return bytes + count * stage_bytes <= (share ? part : limit) &&
             (count == 1 || count * in_flight <= kBytesInFlight);
    });
    if (slice > kMostSlice || stages == std::end(kRingStages)) continue;
    // The smallest cluster that fits, or a larger one as long as all of them run at once. A cluster lies in
    // one part of the chip: not all multiprocessors find one.
    const std::int64_t resident = places * 15 / 16 / blocks;
    if (best && rows * shape.kv_heads > resident) break;
    const std::int64_t room = (share ? part : limit) - *stages * stage_bytes;
    const int smallest =
        rows * shape.kv_heads > resident ? smallest_part(spec, tuning, slice, blocks, room) : blocks;
    const std::int64_t chunks = chunks_of_block(spec, tuning, smallest);
    bytes = launch_bytes(spec, tuning, slice, chunks);
    best = Grid{.x = static_cast<std::uint32_t>(blocks),
                .y = static_cast<std::uint32_t>(shape.kv_heads),
                .z = static_cast<std::uint32_t>(rows),
                .threads = static_cast<std::uint32_t>(tuning.decode_threads),
                .shared_bytes = static_cast<std::uint32_t>(bytes + *stages * stage_bytes),
                .ring_stages = static_cast<std::uint32_t>(*stages),
                .smallest_part = static_cast<std::uint32_t>(smallest),
                .chunks = static_cast<std::uint32_t>(chunks),
                .cluster = static_cast<std::uint32_t>(blocks)};
  }
  return best;
}

}  // namespace adamas::codegen
