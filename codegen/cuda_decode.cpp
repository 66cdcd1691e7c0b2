// Sizes and grids of the decode kernel. See cuda_decode.hpp.
#include "codegen/cuda_decode.hpp"

#include <algorithm>

#include "codegen/cuda_facts.hpp"
#include "codegen/round.hpp"
#include "codegen/target.hpp"
#include "templates/args.h"

namespace adamas::codegen {
namespace {

constexpr int kWarp = 32;
constexpr int kMostBlocks = 8;  // of a cluster; more is not portable
// 3 is for 32 K/V heads: 30 clusters of 4 run at once on an H100, one of 3 for each head does.
constexpr int kClusters[]{1, 2, 3, 4, 8};
constexpr int kMostLists = 8;   // of a cluster: beyond, scores of useful lengths do not fit
constexpr int kFewLists = 4;    // of them: as many as a cluster finds soonest
constexpr int kMostDims = 512;  // K and V elements of a token that a warp can have on their way
constexpr int kMostBudget = 1024;
constexpr int kMostSearchedBudget = 256;  // candidates of more are not sent, but counted
constexpr int kBins = 256;
constexpr int kExcesses = 128;
constexpr int kInboxStep = 96;  // words: any cluster's blocks share them out in rows of banks
constexpr int kBankRow = 128;   // bytes: what shared memory writes at once
constexpr int kMostPieceBytes = 2048;
constexpr int kRingStages[]{4, 2, 1};  // of a warp's ring
// Codes on their way at once, on all multiprocessors: enough to hide the latency of memory. With more, some
// multiprocessors get more of its bandwidth than others, and all wait for the last.
constexpr std::int64_t kBytesInFlight = std::int64_t{3} << 20;
constexpr int kSliceGrain = 64;
constexpr int kThreads = 512;                // of a block with all registers of a multiprocessor
constexpr int kPairThreads = 256;            // of each of two
constexpr int kMostPairLists = 2;            // of a K/V head: each of more has too few warps in a small block
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

/// 128-bit pieces of a plane of codes.
int key_steps(const Spec& spec) { return static_cast<int>(ceil_div(cuda_facts_of(spec).words, 4)); }

/// Columns of bytes of a query head.
int byte_terms(const Spec& spec) { return spec.estimator == Estimator::dot ? 1 : spec.buckets - 1; }

/// Whether a lane's registers have room for columns of bytes, 8 words for one of bits.
bool has_room_for_bytes(const Spec& spec) {
  constexpr int kMostTerms = 3;
  return key_steps(spec) == 1 && byte_terms(spec) <= kMostTerms;
}

/// Words of maxima of a selection; if its candidates are searched, so many of them at most.
int maxima_words(const Spec& spec) {
  return spec.budget > 128 && spec.budget <= kMostSearchedBudget ? 512 : 256;
}

/// Words of a selection for what `blocks` send each other: their histograms, or candidates, which may all be
/// one block's.
std::int64_t inbox_words(const Spec& spec, int blocks) {
  std::int64_t words = std::int64_t{blocks} * kBins / 2;
  if (spec.budget <= kMostSearchedBudget) {
    const std::int64_t most = std::min(blocks, 2) * std::int64_t{maxima_words(spec)};
    words = std::max({words, most, blocks * (std::int64_t{spec.budget} + 32)});
  }
  return round_up(words, kInboxStep);
}

/// Dynamic shared memory of one of `blocks` that attends to `items` chunks, without the rings; see
/// rings_of_block.
std::int64_t launch_bytes(const Spec& spec, const Tuning& tuning, const CudaDecode& decode, int blocks,
                          std::int64_t slice, std::int64_t items) {
  const Lists lists = lists_of(spec, tuning);
  // Scores, and the largest of each piece.
  const std::int64_t scores =
      lists.selections * (round_up((slice + slice / decode.piece) * decode.score_bytes, 128) + 32);
  const std::int64_t tiles =
      items * lists.heads * (tuning.chunk / kCudaTile) * cuda_shared_partial_bytes(spec);
  return decode.shared_bytes + items * tuning.chunk * 4 + lists.selections * inbox_words(spec, blocks) * 4 +
         round_up(std::max(scores, tiles), kBankRow);
}

/// Blocks of the smallest part of a cluster of `blocks` that answers a short row, where there are more
/// clusters than run at once: what every block does once, however few tokens it has, then costs more than
/// sharing saves.
/// @param room  bytes that launch_bytes may have
int smallest_part(const Spec& spec, const Tuning& tuning, const CudaDecode& decode, std::int64_t slice,
                  int blocks, std::int64_t room) {
  // With more, attention takes longer than is saved (32/8 heads, budget 128: a part of one block is best).
  constexpr std::int64_t kMostListed = 512;
  int smallest = blocks;
  for (int part = blocks / 2; part >= 1 && blocks % part == 0; part /= 2) {
    const std::int64_t chunks = chunks_of_block(spec, tuning, part);
    if (chunks * tuning.chunk > kMostListed ||
        launch_bytes(spec, tuning, decode, blocks, slice, chunks) > room)
      break;
    smallest = part;
  }
  return smallest;
}

/// The launch of a unit, and whether two of its blocks share a multiprocessor.
struct Launch {
  Grid grid;
  bool shares;
};

std::optional<Launch> launch_of(const Spec& whole, const Tuning& tuning, Unit unit, std::string_view target,
                                const Shape& whole_shape) {
  const Spec spec = cuda_decode_spec(whole, unit);
  Shape shape = whole_shape;
  shape.kv_heads *= whole.group / spec.group;
  const CudaDecode decode = cuda_decode_of(spec, tuning, unit);
  const std::int64_t rows = std::int64_t{shape.batch} * spec.query_rows;
  const std::int64_t limit = cuda_shared_limit(cuda_architecture(target));
  std::optional<Launch> best;
  for (const int blocks : kClusters) {
    if (tuning.cluster != 0 && tuning.cluster != blocks) continue;
    // Slices begin at multiples of the grain, wherever the row does.
    const std::int64_t slice = ceil_div(ceil_div(shape.max_tokens, kSliceGrain) + 1, blocks) * kSliceGrain;
    std::int64_t bytes =
        launch_bytes(spec, tuning, decode, blocks, slice, chunks_of_block(spec, tuning, blocks));
    const std::int64_t stage_bytes = std::int64_t{decode.threads / kWarp} * decode.piece_bytes;
    // Blocks that may share a multiprocessor do so if the shortest rings allow it: while one selects, the
    // other scans. The system keeps 1 KB of each.
    constexpr std::int64_t kReserved = 1024;
    const std::int64_t part = (limit + kReserved) / decode.blocks_per_processor - kReserved;
    const bool share = decode.blocks_per_processor > 1 && bytes + stage_bytes <= part;
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
        rows * shape.kv_heads > resident ? smallest_part(spec, tuning, decode, slice, blocks, room) : blocks;
    const std::int64_t chunks = chunks_of_block(spec, tuning, smallest);
    bytes = launch_bytes(spec, tuning, decode, blocks, slice, chunks);
    best = Launch{.grid = {.x = static_cast<std::uint32_t>(blocks),
                           .y = static_cast<std::uint32_t>(shape.kv_heads),
                           .z = static_cast<std::uint32_t>(rows),
                           .threads = static_cast<std::uint32_t>(decode.threads),
                           .shared_bytes = static_cast<std::uint32_t>(bytes + *stages * stage_bytes),
                           .stage = cuda_decode_stage(unit),
                           .ring_stages = static_cast<std::uint32_t>(*stages),
                           .smallest_part = static_cast<std::uint32_t>(smallest),
                           .inbox_words = static_cast<std::uint32_t>(inbox_words(spec, blocks)),
                           .chunks = static_cast<std::uint32_t>(chunks),
                           .cluster = static_cast<std::uint32_t>(blocks)},
                  .shares = share};
  }
  return best;
}

/// Whether two small blocks a multiprocessor answer `rows` sooner than a large one: one waits for memory
/// while the other computes. A long row takes them longer, which must not be what all wait for in the end.
bool gains_from_pairs(const Shape& shape, const Grid& grid) {
  constexpr std::int64_t kShortRow = 8192;
  const std::int64_t blocks = std::int64_t{grid.y} * grid.z, at_once = std::int64_t{2} * shape.processors;
  return shape.max_tokens <= kShortRow ? blocks > shape.processors : blocks >= 2 * at_once;
}

}  // namespace

Stage cuda_decode_stage(Unit unit) {
  if (unit == Unit::decode_pair) return Stage::decode_pair;
  return unit == Unit::decode_long ? Stage::decode_long : Stage::decode;
}

Spec cuda_decode_spec(const Spec& spec, Unit unit) {
  const int lists = facts_of(spec).selections_per_kv_head;
  Spec part = spec;
  // With more lists a cluster takes longer for all of them than two clusters for half each, with fewer too
  // many scan the same codes (one H200, 8 query heads a K/V head: 4 lists a cluster take 6 to 19 % less time
  // than 8 with 32K tokens or ragged rows, and a tenth more with 16 rows of 8K).
  const auto cut = [&](int fewest, int most) {
    for (int parts = 1; parts <= lists; ++parts) {
      const int each = lists / parts;
      if (lists % parts != 0 || each < fewest || each > most) continue;
      part.group = spec.group / parts;
      return true;
    }
    return false;
  };
  if (lists == 1) return part;
  // Scores of two lists of 256K tokens fit.
  if (unit == Unit::decode_long) return cut(2, 2) || cut(1, 1) ? part : spec;
  return cut(3, kFewLists) || cut(2, kMostLists) || cut(1, 1) ? part : spec;
}

CudaDecode cuda_decode_of(const Spec& whole, const Tuning& tuning, Unit unit) {
  const Spec spec = cuda_decode_spec(whole, unit);
  const CudaFacts cuda = cuda_facts_of(spec);
  const Lists lists = lists_of(spec, tuning);
  CudaDecode decode{};
  decode.threads = unit == Unit::decode_pair    ? kPairThreads
                   : tuning.decode_threads == 0 ? kThreads
                                                : tuning.decode_threads;
  const int warps = decode.threads / kWarp;
  decode.bytes = tuning.scan == "bytes" && has_room_for_bytes(spec);
  const int bit_terms = spec.estimator == Estimator::dot ? (spec.query_bits + 1) / 2 : spec.buckets - 1;
  decode.terms = decode.bytes ? byte_terms(spec) : bit_terms;
  // Rows of 4 or 8 bytes share 16 with others, longer ones begin with 16 of their own.
  const int token_bytes = cuda.facts.code_bits *
                          static_cast<int>(cuda.words <= 2 ? cuda.words * 4 : round_up(cuda.words * 4, 16));
  decode.piece = 64;
  while (decode.piece > 16 && decode.piece * token_bytes > kMostPieceBytes)
    decode.piece /= 2;
  decode.piece_bytes = decode.piece * token_bytes;
  decode.key_steps = key_steps(spec);
  decode.columns = decode.bytes ? decode.terms : 2 * decode.terms;
  decode.column_registers = decode.bytes ? 8 : 1;
  decode.column_words = 4 * decode.key_steps * decode.column_registers;
  decode.maxima_words = maxima_words(spec);
  // Two 16-bit scores are compared at once by their spare top bits.
  decode.score_bytes = cuda.facts.key_forced + 2 < (1 << 15) ? 2 : 4;
  decode.blocks_per_processor = decode.threads <= kPairThreads ? 2 : 1;

  const std::int64_t s = lists.selections;
  std::int64_t bytes = s * kExcesses * 4;
  bytes += std::int64_t{spec.group} * decode.columns * decode.column_words * 4;      // columns
  bytes += s * cuda.list_passes * cuda.pass_query_bytes;                             // queries
  bytes += s * lists.padded_heads * lists.chunks * cuda_shared_partial_bytes(spec);  // partials
  bytes += s * decode.maxima_words * 4;
  bytes += s * (spec.budget <= kMostSearchedBudget ? decode.maxima_words : 4) * 4;  // entries
  bytes += s * kMostBlocks * 4;                                                     // counts of blocks
  const int list_warps = std::max(1, warps / lists.selections);
  bytes = round_up(bytes, 8) + std::int64_t{sizeof(adamas_abi::Args)} + 88;  // arguments, kept
  bytes += 4 * 4 + s * (list_warps + 1 + 2) * 4;  // shares; candidates: counts, thresholds
  bytes = round_up(bytes, 8);
  bytes += 6 * 8;                                            // mailboxes
  bytes += s * 7 * 4 + s * list_warps * 4 + spec.group * 4;  // searches, counts, biases
  bytes += std::int64_t{warps} * cuda.rotate_scratch * 4;
  decode.shared_bytes = round_up(bytes, kBankRow);
  return decode;
}

std::vector<Unit> cuda_decode_units(const Spec& whole, const Tuning& tuning, std::string_view target) {
  const Spec spec = cuda_decode_spec(whole, Unit::decode);
  const int lists = facts_of(spec).selections_per_kv_head;
  const bool fits = tuning.schedule == "cluster" && cuda_architecture(target) >= 90 && lists <= kMostLists &&
                    spec.head_dim + spec.value_dim <= kMostDims && spec.budget <= kMostBudget;
  if (!fits) return {};
  if (lists > kMostPairLists) return {Unit::decode, Unit::decode_long};
  if (tuning.decode_threads != 0) return {Unit::decode};
  return {Unit::decode, Unit::decode_pair};
}

bool cuda_decode_may_launch(Unit unit, const Spec& spec, const Tuning& tuning, std::string_view target,
                            const Shape& shape) {
  const bool is_long = !launch_of(spec, tuning, Unit::decode, target, shape);
  if (unit != Unit::decode_long) return !is_long;
  return is_long && launch_of(spec, tuning, unit, target, shape);
}

std::optional<Grid> cuda_decode_grid(const Spec& spec, const Tuning& tuning, std::string_view target,
                                     const Shape& shape) {
  const std::vector<Unit> units = cuda_decode_units(spec, tuning, target);
  const auto has = [&](Unit unit) { return std::ranges::find(units, unit) != units.end(); };
  constexpr std::int64_t kMostBlocksOfGrid = 65535;  // along y and z
  const std::int64_t rows = std::int64_t{shape.batch} * spec.query_rows;
  if (units.empty() || rows > kMostBlocksOfGrid) return std::nullopt;
  auto launch = launch_of(spec, tuning, Unit::decode, target, shape);
  if (!launch && has(Unit::decode_long)) launch = launch_of(spec, tuning, Unit::decode_long, target, shape);
  if (!launch || launch->grid.y > kMostBlocksOfGrid) return std::nullopt;
  // Not pairs in clusters: fewer of those find room than of large blocks.
  if (has(Unit::decode_pair) && launch->grid.cluster == 1 && gains_from_pairs(shape, launch->grid)) {
    const auto pair = launch_of(spec, tuning, Unit::decode_pair, target, shape);
    if (pair && pair->grid.cluster == 1 && pair->shares) return pair->grid;
  }
  return launch->grid;
}

}  // namespace adamas::codegen
