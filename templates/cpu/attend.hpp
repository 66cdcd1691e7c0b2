// attend: chunk of a token list (or of everything a row sees) -> partial sums of softmax attention.
//
// Work item of a row with a selection: chunk (x), K/V head (y), row (z), for all query heads of the group. A
// row that attends to all shares its items out differently: chunk and block of K/V heads (dense_block),
// because in most caches the heads of a token lie side by side and memory is fastest when whole tokens are
// read in order. Tokens come in tiles of 64: first the K rows of a tile, token after token and in each head
// after head, then its V rows, while the rows to come are prefetched. The sums of a chunk depend on its own
// tokens and their order alone, not on what else its work item covers.
#pragma once

#include "templates/cpu/partial.hpp"
#include "templates/cpu/weigh.hpp"

namespace adamas_cpu {

#pragma clang fp contract(fast)

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kSums = 16;  // accumulators in registers
#else
constexpr int kLanes = 8;
constexpr int kSums = 8;
#endif
using Floats = Vec<float, kLanes>;

constexpr int kQueriesTogether = 4;  // query heads that share a loaded K or V vector
constexpr int kValueRows = 8;        // V rows that are added between a load and a store of the sums

/// K/V heads of a dense work item. Their queries, and later their sums, should take half of an L1 cache.
constexpr int kMostHeads = larger(1, smaller(32, 4096 / (kGroup * larger(kHeadDim, kValueDim))));
/// Dense rows get smaller blocks of heads rather than fewer work items than this.
constexpr int kEnoughItems = 32;

/// K and V rows of up to 64 tokens, of the first head of a block. Both are filled up to a multiple of kSums
/// with the last row, so that the K pass needs no remainder, nor what fetches rows ahead; what the K pass
/// computes there is dropped.
struct Tile {
  const Kv::Raw* key[kTile];
  const Kv::Raw* value[kTile];
  int count;
};

/// What a work item attends to: positions, or a run of consecutive ones.
struct TokenList {
  const int* positions;  // null: first, first + 1, ...
  i64 first;
  i64 count;
};

/// A chunk of K/V heads first_head .. first_head + heads - 1.
struct Block {
  i64 chunk;
  i64 first_head;
  int heads;
};

/// The query heads of a work item while it runs.
struct Work {
  static constexpr int kQueries = kMostHeads * kGroup;
  float query[kQueries][kHeadDim];
  float sums[kQueries][kValueDim];
  float max[kQueries], sum[kQueries];  // PartialState
};

/// The part of selection `selection` (of this row) that a chunk covers.
ADAMAS_FUNCTION TokenList selected_tokens(const Args& args, const Row& row, i64 selection, i64 chunk) {
  const i64 number = row.number * args.kv_heads * kSelectionsPerKvHead + selection;
  const i64 from = chunk * kChunk;
  return {args.positions + number * kBudget + from, 0,
          smaller(i64(kChunk), listed_tokens(args, number) - from)};
}

/// The same of a row that attends to all.
ADAMAS_FUNCTION TokenList all_tokens(const Row& row, i64 chunk) {
  const i64 from = chunk * kDenseChunk;
  return {nullptr, row.first + from, smaller(i64(kDenseChunk), row.visible() - from)};
}

/// Tokens from .. from + 63 of a list. Positions that the row does not see are left out and reported.
ADAMAS_NOINLINE void fill_tile(const Args& args, const Row& row, i64 kv_head, const TokenList& list, i64 from,
                               Tile& tile, u32& status) {
  tile.count = 0;
  // Rows of `tokens` slots of one page, from that of `index` on.
  const auto add = [&](i64 index, Slot slot, i64 tokens) {
    const Kv::Raw* key = key_row(args, slot, kv_head);
    const Kv::Raw* value = value_row(args, value_slot(args, row, index, slot, status), kv_head);
    if (kPointers && (key == nullptr || value == nullptr)) {
      status |= adamas_abi::kBadTable;
      return;
    }
    ADAMAS_ROLLED
    for (i64 i = 0; i < tokens; ++i, key += args.key_token_stride, value += args.value_token_stride) {
      tile.key[tile.count] = key;
      tile.value[tile.count++] = value;
    }
  };
  const i64 end = smaller(from + kTile, list.count);
  if (list.positions == nullptr) {
    for (i64 i = from; i < end;) {
      const i64 index = row.start + list.first + i;
      const Slot slot = slot_of_index(args, row, index, status);
      const i64 tokens = smaller(end - i, page_tokens(args) - slot.token);
      add(index, slot, tokens);
      i += tokens;
    }
  } else {
    ADAMAS_ROLLED
    for (i64 i = from; i < end; ++i) {
      const i64 position = list.positions[i];
      if (position < row.first || position > row.own) {
        status |= adamas_abi::kBadPosition;
        continue;
      }
      const i64 index = row.start + position;
      add(index, slot_of_index(args, row, index, status), 1);
    }
  }
  ADAMAS_ROLLED
  for (int i = tile.count; tile.count > 0 && i % kSums != 0; ++i) {
    tile.key[i] = tile.key[tile.count - 1];
    tile.value[i] = tile.value[tile.count - 1];
  }
}

/// Rows that are to be fetched into the L2 cache while as many are worked on. A line at a time, between other
/// work: a burst of requests would fill the buffers that loads need too.
struct RowsAhead {
  const Kv::Raw* const* rows;
  i64 offset;  // in elements

  void fetch(int row, int line) const {
    __builtin_prefetch(reinterpret_cast<const char*>(rows[row] + offset) + line * 64, 0, 2);
  }
};
constexpr int lines_of(int elements) {
  return (elements / Kv::kElements * static_cast<int>(sizeof(Kv::Raw)) + 63) / 64;
}

constexpr int largest_divisor(int n, int limit) {
  while (n % limit != 0)
    --limit;
  return limit;
}

/// K rows that are worked on together with so many queries: a power of two, as tiles and padding are
/// multiples of it; no more than the ways of an L1 cache, as rows may lie a multiple of its sets apart.
constexpr int tokens_together(int queries) {
  int tokens = 1;
  while (tokens < 8 && 2 * tokens * queries <= kSums)
    tokens *= 2;
  return tokens;
}

/// logit[q][t] = query q . row t, for rows that begin `offset` elements after rows[t].
template <int kQueries>
ADAMAS_INLINE void dot_products(const float (*query)[kHeadDim], const Kv::Raw* const* rows, i64 offset,
                                const RowsAhead& ahead, float (*logit)[kTile]) {
  constexpr int kTokens = tokens_together(kQueries), kVectors = kHeadDim / kLanes;
  // Vectors between two fetches of a line: at least as many fetches as a row has lines.
  constexpr int kStep = largest_divisor(kVectors, larger(1, kVectors / lines_of(kHeadDim)));
  const Kv::Raw* key[kTokens];
  ADAMAS_UNROLL
  for (int t = 0; t < kTokens; ++t)
    key[t] = rows[t] + offset;
  constexpr int kUsed = kQueries * kTokens <= 8 ? 8 : kSums;
  Floats sum[kUsed] = {};
  ADAMAS_ROLLED
  for (int step = 0; step < kVectors / kStep; ++step) {
    ADAMAS_UNROLL
    for (int t = 0; t < kTokens; ++t)
      ahead.fetch(t, step);
    ADAMAS_UNROLL
    for (int v = 0; v < kStep; ++v) {
      const int c = (step * kStep + v) * kLanes;
      Floats k[kTokens];
      ADAMAS_UNROLL
      for (int t = 0; t < kTokens; ++t)
        k[t] = load_elements<Kv, kLanes>(key[t], c);
      ADAMAS_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        const Floats element = load<Floats>(query[q] + c);
        ADAMAS_UNROLL
        for (int t = 0; t < kTokens; ++t)
          sum[q * kTokens + t] += element * k[t];
      }
    }
  }
  struct Parts {
    Vec<float, kTokens> of_query[kUsed / kTokens];
  };
  const Parts parts = bits_as<Parts>(sum_lanes(sum));
  ADAMAS_UNROLL
  for (int q = 0; q < kQueries; ++q)
    store(logit[q], parts.of_query[q]);
}

/// Elements of a V row that are worked on together with so many queries: a power of two (other vectors take
/// more memory than their elements), within a block where a format has blocks.
constexpr int elements_together(int queries) {
  int elements = kLanes;
  while (kValueDim % (2 * elements) == 0 && 2 * elements * queries <= kSums * kLanes &&
         (Kv::kElements == 1 || 2 * elements <= Kv::kElements))
    elements *= 2;
  return elements;
}

/// sums[q][e] += sum over kRows rows of weight[q][i] * row i [offset + e]. Several registers make one vector
/// here: that is what the compiler splits them into, but its passes see fewer instructions.
template <int kQueries, int kRows>
ADAMAS_INLINE void add_values(const float (*weight)[kTile], const Kv::Raw* const* rows, i64 offset,
                              const RowsAhead& ahead, float (*sums)[kValueDim]) {
  constexpr int kElements = elements_together(kQueries), kSteps = kValueDim / kElements;
  constexpr int kLines = lines_of(kValueDim), kFetches = static_cast<int>(ceil_div(kRows * kLines, kSteps));
  using Elements = Vec<float, kElements>;
  const Kv::Raw* value[kRows];
  ADAMAS_UNROLL
  for (int i = 0; i < kRows; ++i)
    value[i] = rows[i] + offset;
  ADAMAS_ROLLED
  for (int step = 0; step < kSteps; ++step) {
    const int e = step * kElements;
    Elements sum[kQueries];
    ADAMAS_UNROLL
    for (int q = 0; q < kQueries; ++q)
      sum[q] = load<Elements>(sums[q] + e);
    ADAMAS_UNROLL
    for (int i = 0; i < kRows; ++i) {
      ADAMAS_UNROLL
      for (int n = i * kFetches / kRows; kRows > 1 && n < (i + 1) * kFetches / kRows; ++n) {
        const int line = step * kFetches + n;
        ahead.fetch(smaller(line / kLines, kRows - 1), line % kLines);
      }
      const Elements v = load_elements<Kv, kElements>(value[i], e);
      ADAMAS_UNROLL
      for (int q = 0; q < kQueries; ++q)
        sum[q] += v * weight[q][i];
    }
    ADAMAS_UNROLL
    for (int q = 0; q < kQueries; ++q)
      store(sums[q] + e, sum[q]);
  }
}

/// Rows of one head each, `filled` of them with those that fill up.
struct Rows {
  const Kv::Raw* const* row;
  int filled;
  i64 head_stride;
};

constexpr int filled_up(int rows) { return (rows + kSums - 1) / kSums * kSums; }

/// The order in which rows are used: those of one pass, then those of the next.
struct RowSequence {
  Rows first, second;
  const Kv::Raw* const* otherwise;  // rows to fetch where none follow: some that are in the caches

  /// Rows from `place` on, a multiple of as many as are worked on together.
  RowsAhead at(int place, int head) const {
    if (place < first.filled) return {first.row + place, head * first.head_stride};
    const int after = place - first.filled;
    if (after < second.filled) return {second.row + after, head * second.head_stride};
    return {otherwise, 0};
  }
};

/// Rows of many heads that are fetched ahead of use: 16 KiB or somewhat more.
constexpr int rows_ahead(int heads) { return filled_up(kTile / heads); }

/// kCount things, from `first` on, that are worked on together.
template <int kCount>
struct Run {
  int first;
};

/// Calls body(Run) for kQueries query heads: runs that share loaded vectors.
template <int kQueries, class Body>
ADAMAS_INLINE void in_runs(const Body& body) {
  constexpr int kRest = kQueries % kQueriesTogether;
  ADAMAS_ROLLED
  for (int q = 0; q + kQueriesTogether <= kQueries; q += kQueriesTogether)
    body(Run<kQueriesTogether>{q});
  if constexpr (kRest > 0) body(Run<kRest>{kQueries - kRest});
}

/// Adds a tile to the sums of query heads number .. number + heads * kQueries - 1 of `work`, kQueries for
/// each of `heads` K/V heads. `next` is the tile that comes after it.
template <int kQueries>
ADAMAS_NOINLINE void attend_tile(const Args& args, const Tile& tile, const Tile& next, int heads, int number,
                                 Work& work) {
  // The rows of a single head lie apart, and memory takes its time: fetch a tile ahead. Those of many heads
  // would fill the L2 cache that way.
  const bool whole_tile = heads == 1;
  const int ahead = whole_tile ? 0 : rows_ahead(heads);
  float logit[kQueries == kGroup ? kMostHeads * kGroup : kQueries][kTile];
  const Rows own_keys{tile.key, filled_up(tile.count), args.key_head_stride};
  const Rows own_values{tile.value, filled_up(tile.count), args.value_head_stride};
  const Rows next_keys{next.key, filled_up(next.count), args.key_head_stride};
  const Rows next_values{next.value, filled_up(next.count), args.value_head_stride};

  const RowSequence keys =
      whole_tile ? RowSequence{next_keys, {}, tile.key} : RowSequence{own_keys, own_values, tile.key};
  constexpr int kRest = kQueries % kQueriesTogether;
  constexpr int kTokens = tokens_together(kRest > 0 ? kRest : kQueriesTogether);
  ADAMAS_ROLLED
  for (int i = 0; i < tile.count; i += kTokens) {
    ADAMAS_ROLLED
    for (int head = 0; head < heads; ++head) {
      in_runs<kQueries>([&]<int kTogether>(Run<kTogether> run) {
        const int q = head * kQueries + run.first;
        ADAMAS_ROLLED
        for (int t = 0; t < kTokens; t += tokens_together(kTogether))
          dot_products<kTogether>(work.query + number + q, tile.key + i + t, head * args.key_head_stride,
                                  keys.at(i + t + ahead, head),
                                  reinterpret_cast<float(*)[kTile]>(&logit[q][i + t]));
      });
    }
  }

  // What fills the last vector of logits is left out by weigh.
  float factor[Work::kQueries];
  const int queries = heads * kQueries;
  int weighed = 0;
  ADAMAS_ROLLED
  for (; weighed + 4 <= queries; weighed += 4)
    weigh<4>(args, logit + weighed, tile.count, work.max + number + weighed, work.sum + number + weighed,
             factor + weighed);
  ADAMAS_ROLLED
  for (; weighed < queries; ++weighed)
    weigh<1>(args, logit + weighed, tile.count, work.max + number + weighed, work.sum + number + weighed,
             factor + weighed);
  ADAMAS_ROLLED
  for (int q = 0; q < queries; ++q) {
    if (factor[q] == 1.0f) continue;
    float* const sums = work.sums[number + q];
    ADAMAS_ROLLED
    for (int e = 0; e < kValueDim; e += 8)
      store(sums + e, load<F32x8>(sums + e) * factor[q]);
  }

  const RowSequence values =
      whole_tile ? RowSequence{next_values, {}, tile.value} : RowSequence{own_values, next_keys, tile.value};
  const auto add = [&]<int kRows>(Run<kRows> rows) {
    ADAMAS_ROLLED
    for (int head = 0; head < heads; ++head) {
      in_runs<kQueries>([&]<int kTogether>(Run<kTogether> run) {
        const int q = head * kQueries + run.first;
        add_values<kTogether, kRows>(reinterpret_cast<const float(*)[kTile]>(&logit[q][rows.first]),
                                     tile.value + rows.first, head * args.value_head_stride,
                                     values.at(rows.first + ahead, head), work.sums + number + q);
      });
    }
  };
  int i = 0;
  ADAMAS_ROLLED
  for (; i + kValueRows <= tile.count; i += kValueRows)
    add(Run<kValueRows>{i});
  ADAMAS_ROLLED
  for (; i < tile.count; ++i)
    add(Run<1>{i});
}

#pragma clang fp contract(off)

/// Queries of a block as float32, times the scale of their keys; sums of nothing.
ADAMAS_FUNCTION void begin(const Args& args, const Row& row, const Block& block, Work& work) {
  const Query::Raw* from = static_cast<const Query::Raw*>(args.query) + row.number * args.query_row_stride +
                           block.first_head * kGroup * args.query_head_stride;
  ADAMAS_ROLLED
  for (int q = 0; q < block.heads * kGroup; ++q, from += args.query_head_stride) {
    const float factor = kScaled ? key_scale(args, block.first_head + q / kGroup) : 1.0f;
    ADAMAS_ROLLED
    for (int c = 0; c < kHeadDim; c += kLanes)
      store(&work.query[q][c], load_floats<Query, kLanes>(from + c) * factor);
    ADAMAS_ROLLED
    for (int e = 0; e < kValueDim; e += 8)
      store(&work.sums[q][e], F32x8(0.0f));
    work.max[q] = kNoLogit;
    work.sum[q] = 0;
  }
}

/// Work -> partials of every query head that has this chunk.
ADAMAS_FUNCTION void finish(const Args& args, const Row& row, const Block& block, const Work& work) {
  ADAMAS_ROLLED
  for (int q = 0; q < block.heads * kGroup; ++q) {
    const i64 query_head = block.first_head * kGroup + q;
    if (block.chunk >= chunks_of(args, row, query_head)) continue;
    float* const partial = partial_of(args, row.number, query_head, block.chunk);
    const float factor = kScaled ? value_scale(args, query_head / kGroup) : 1.0f;
    ADAMAS_ROLLED
    for (int e = 0; e < kValueDim; e += 8)
      store(partial + e, load<F32x8>(&work.sums[q][e]) * factor);
    store(partial + kValueDim, PartialState{work.max[q], work.sum[q]});
  }
}

/// The block of a dense row that item (x, y) works on; no heads where there are more items than blocks.
/// Blocks are spread evenly over the items, chunk after chunk.
ADAMAS_FUNCTION Block dense_block(const Args& args, const Row& row, unsigned x, unsigned y) {
  const bool token_major =
      args.key_head_stride < args.key_token_stride && args.value_head_stride < args.value_token_stride;
  const i64 chunks = chunks_of(args, row, 0), rows = i64(args.batch) * kQueryRows;
  const i64 heads = !token_major ? 1
                                 : larger(smaller(rows * chunks * args.kv_heads / kEnoughItems,
                                                  i64(smaller(kMostHeads, args.kv_heads))),
                                          i64(1));
  const i64 blocks_of_heads = ceil_div(args.kv_heads, heads), blocks = chunks * blocks_of_heads;
  const i64 items = i64(args.chunks) * args.kv_heads, item = i64(y) * args.chunks + x;
  const i64 block = ceil_div(item * blocks, items);
  if (block * items >= (item + 1) * blocks) return {};
  const i64 first_head = block % blocks_of_heads * heads;
  return {block / blocks_of_heads, first_head, static_cast<int>(smaller(heads, args.kv_heads - first_head))};
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_attend(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (row.visible() <= 0) return;
  const bool all = attends_all(*args, row), one_list = all || kSelectionsPerKvHead == 1;
  const Block block = all ? dense_block(*args, row, x, y) : Block{x, y, 1};
  if (block.heads == 0) return;
  Work work;
  begin(*args, row, block, work);

  // Tiles of all lists in a row, so that the first tile of a list is prefetched during the last of the one
  // before.
  const auto list_of = [&](int number) {
    return all ? all_tokens(row, block.chunk)
               : selected_tokens(*args, row, block.first_head * kSelectionsPerKvHead + number, block.chunk);
  };
  const int lists = one_list ? 1 : kGroup;
  u32 status = 0;
  int next_list = 0;
  i64 next_from = 0;
  TokenList list = list_of(0);
  const auto fill_next = [&](Tile& tile) {
    tile.count = 0;
    while (next_list < lists && tile.count == 0) {
      if (next_from >= list.count) {
        if (++next_list < lists) list = list_of(next_list);
        next_from = 0;
        continue;
      }
      fill_tile(*args, row, block.first_head, list, next_from, tile, status);
      next_from += kTile;
    }
    return next_list;
  };
  Tile tiles[2];
  int number = fill_next(tiles[0]);
  // Nothing has fetched the first rows.
  const int first_rows = block.heads == 1 ? kTile : rows_ahead(block.heads);
  ADAMAS_ROLLED
  for (int i = 0; i < smaller(first_rows, tiles[0].count); ++i) {
    ADAMAS_ROLLED
    for (int head = 0; head < block.heads; ++head) {
      const RowsAhead keys{tiles[0].key, head * args->key_head_stride}, values{tiles[0].value, 0};
      ADAMAS_ROLLED
      for (int line = 0; line < lines_of(kHeadDim); ++line)
        keys.fetch(i, line);
      ADAMAS_ROLLED
      for (int line = 0; block.heads == 1 && line < lines_of(kValueDim); ++line)
        values.fetch(i, line);
    }
  }
  i64 attended = 0;
  ADAMAS_ROLLED
  for (int current = 0; tiles[current].count > 0; current ^= 1) {
    const Tile& tile = tiles[current];
    Tile& next = tiles[current ^ 1];
    const int next_number = fill_next(next);
    if (one_list) {
      attend_tile<kGroup>(*args, tile, next, block.heads, 0, work);
      attended += i64(tile.count) * block.heads * kGroup;
    } else {
      attend_tile<1>(*args, tile, next, 1, number, work);
      attended += tile.count;
    }
    number = next_number;
  }
  finish(*args, row, block, work);
  report(*args, status);
  count(*args, &adamas_abi::Counters::tokens_attended, attended);
}
