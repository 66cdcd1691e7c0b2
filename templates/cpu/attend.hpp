// attend: chunk of a token list (or of everything a row sees) -> partial sums of softmax attention.
//
// Work item: chunk (x), K/V head (y), row (z), for all query heads of the group. Tokens come in tiles of 64.
// Where the heads share their tokens a tile's K and V rows are read from memory once for the whole group;
// while a tile is worked on, the next one's rows are prefetched. The sums of a chunk depend on its own tokens
// and their order alone.
#pragma once

#include "templates/cpu/math.hpp"
#include "templates/cpu/partial.hpp"

namespace adamas_cpu {

#pragma clang fp contract(fast)

constexpr int kTile = 64;

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Floats = Vec<float, kLanes>;

constexpr int kSums = 8;           // K pass: accumulators in registers
constexpr int kHeadsTogether = 4;  // query heads that share a loaded K or V vector

/// K and V rows of up to 64 tokens. `key` is filled up to a multiple of kSums with the last row, so that the
/// K pass needs no remainder; what it computes there is dropped.
struct Tile {
  const Kv::Raw* key[kTile];
  const Kv::Raw* value[kTile];
  int count;
};

/// The list of a work item: positions, or a run of consecutive ones.
struct TokenList {
  const int* positions;  // null: first, first + 1, ...
  i64 first;
  i64 count;
};

/// The part of a list that chunk x covers. A row that attends to all has one list, others one a selection.
ADAMAS_FUNCTION TokenList list_of(const Args& args, const Row& row, i64 selection, unsigned chunk) {
  if (attends_all(args, row)) {
    const i64 from = i64(chunk) * kDenseChunk;
    return {nullptr, row.first + from, smaller(i64(kDenseChunk), row.visible() - from)};
  }
  const i64 number = row.number * args.kv_heads * kSelectionsPerKvHead + selection;
  const i64 from = i64(chunk) * kChunk;
  return {args.positions + number * kBudget + from, 0,
          smaller(i64(kChunk), listed_tokens(args, number) - from)};
}

/// Tokens from .. from + 63 of a list. Positions that the row does not see are left out and reported.
ADAMAS_FUNCTION void fill_tile(const Args& args, const Row& row, i64 head, const TokenList& list, i64 from,
                               Tile& tile, u32& status) {
  tile.count = 0;
  const i64 end = smaller(from + kTile, list.count);
  ADAMAS_ROLLED
  for (i64 i = from; i < end; ++i) {
    const i64 position = list.positions != nullptr ? list.positions[i] : list.first + i;
    if (position < row.first || position > row.own) {
      status |= adamas_abi::kBadPosition;
      continue;
    }
    const Slot slot = slot_of_index(args, row, row.start + position, status);
    tile.key[tile.count] = static_cast<const Kv::Raw*>(args.keys) + slot.page * args.key_page_stride +
                           slot.token * args.key_token_stride + head * args.key_head_stride;
    tile.value[tile.count] = static_cast<const Kv::Raw*>(args.values) + slot.page * args.value_page_stride +
                             slot.token * args.value_token_stride + head * args.value_head_stride;
    ++tile.count;
  }
  for (int i = tile.count; tile.count > 0 && i % kSums != 0; ++i)
    tile.key[i] = tile.key[tile.count - 1];
}

/// Prefetches rows first .. end - 1 into the L2 cache.
template <int kElements>
ADAMAS_INLINE void prefetch_rows(const Kv::Raw* const* rows, int first, int end) {
  constexpr int kLine = 64 / sizeof(Kv::Raw);
  ADAMAS_ROLLED
  for (int row = first; row < end; ++row) {
    ADAMAS_UNROLL
    for (int i = 0; i < kElements; i += kLine)
      __builtin_prefetch(rows[row] + i, 0, 2);
  }
}

ADAMAS_INLINE F32x8 to_eight(F32x8 v) { return v; }
ADAMAS_INLINE F32x8 to_eight(Vec<float, 16> v) { return v.lo + v.hi; }

/// Lane i of the result: the sum of the lanes of v[i].
ADAMAS_INLINE F32x8 sum_lanes(const Floats (&v)[8]) {
  F32x8 fours[4], twos[2];
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    const F32x8 a = to_eight(v[2 * i]), b = to_eight(v[2 * i + 1]);
    fours[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  ADAMAS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const F32x8 a = fours[2 * i], b = fours[2 * i + 1];
    twos[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
              __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  return __builtin_shufflevector(twos[0], twos[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(twos[0], twos[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/// logit[q][i] = query q . key i, for kQueries queries of kHeadDim floats.
template <int kQueries>
ADAMAS_INLINE void dot_products(const float (*query)[kHeadDim], const Tile& tile, const Tile* ahead,
                                float (*logit)[kTile]) {
  constexpr int kTokens = kSums / kQueries;
  ADAMAS_ROLLED
  for (int i = 0; i < tile.count; i += kTokens) {
    if (ahead != nullptr) prefetch_rows<kHeadDim>(ahead->key, i, smaller(i + kTokens, ahead->count));
    const Kv::Raw* key[kTokens];
    for (int t = 0; t < kTokens; ++t)
      key[t] = tile.key[i + t];
    Floats sum[8] = {};
    ADAMAS_UNROLL_TWICE
    for (int c = 0; c < kHeadDim; c += kLanes) {
      Floats k[kTokens];
      ADAMAS_UNROLL
      for (int t = 0; t < kTokens; ++t)
        k[t] = load_floats<Kv, kLanes>(key[t] + c);
      ADAMAS_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        const Floats element = load<Floats>(query[q] + c);
        ADAMAS_UNROLL
        for (int t = 0; t < kTokens; ++t)
          sum[q * kTokens + t] += element * k[t];
      }
    }
    const F32x8 sums = sum_lanes(sum);
    ADAMAS_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      ADAMAS_UNROLL
      for (int t = 0; t < kTokens; ++t)
        logit[q][i + t] = sums[q * kTokens + t];
    }
  }
}

/// Logits of one query -> weights exp(logit - max), with the running maximum and sum of its partial. Returns
/// what the sums so far must be multiplied by.
ADAMAS_FUNCTION float weigh(const Args& args, float* logit, int tokens, PartialState& state) {
  ADAMAS_ROLLED
  for (int i = tokens; i % 8 != 0; ++i)
    logit[i] = 0;
  F32x8 most = state.max;
  ADAMAS_ROLLED
  for (int i = 0; i < tokens; i += 8) {
    F32x8 x = load<F32x8>(logit + i) * args.scale;
    if constexpr (kSoftCap) x = tanh_of(x / args.soft_cap) * args.soft_cap;
    const I32x8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    x = lane + i < tokens ? x : F32x8(-__builtin_inff());
    store(logit + i, x);
    most = x > most ? x : most;
  }
  float max = most[0];
  for (int i = 1; i < 8; ++i)
    max = most[i] > max ? most[i] : max;
  const float factor = exp_of(state.max - max);
  state.max = max;
  F32x8 sum = 0;
  ADAMAS_ROLLED
  for (int i = 0; i < tokens; i += 8) {
    const F32x8 weight = exp_of(load<F32x8>(logit + i) - max);
    store(logit + i, weight);
    sum += weight;
  }
  float total = 0;
  for (int i = 0; i < 8; ++i)
    total += sum[i];
  state.sum = state.sum * factor + total;
  return factor;
}

constexpr int largest_divisor(int n, int limit) {
  while (n % limit != 0)
    --limit;
  return limit;
}

/// V rows that are taken together. Rows of one head often lie a power of two apart and compete for a few sets
/// of the L1 cache: so many stay there until all their elements are added.
constexpr int kValueRows = 8;

/// sums[q][e] = sums[q][e] * factor[q] + sum over the tokens of weight[q][i] * value[i][e].
template <int kQueries>
ADAMAS_INLINE void add_values(const float (*weight)[kTile], const float* factor, const Tile& tile,
                              const Tile* ahead, float* const (&sums)[kQueries]) {
  constexpr int kVectors = largest_divisor(kValueDim / kLanes, 8 / kQueries);
  constexpr int kBlocks = kValueDim / (kVectors * kLanes);
  ADAMAS_ROLLED
  for (int first = 0; first < tile.count; first += kValueRows) {
    const int end = smaller(first + kValueRows, tile.count);
    ADAMAS_ROLLED
    for (int block = 0; block < kBlocks; ++block) {
      if (ahead != nullptr) {  // a few rows a block: a burst would wait for the memory
        prefetch_rows<kValueDim>(ahead->value, first + kValueRows * block / kBlocks,
                                 smaller(first + kValueRows * (block + 1) / kBlocks, ahead->count));
      }
      const int e = block * kVectors * kLanes;
      Floats sum[kQueries][kVectors];
      ADAMAS_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        const float scale = first == 0 ? factor[q] : 1.0f;
        ADAMAS_UNROLL
        for (int c = 0; c < kVectors; ++c)
          sum[q][c] = load<Floats>(sums[q] + e + c * kLanes) * scale;
      }
      ADAMAS_ROLLED
      for (int i = first; i < end; ++i) {
        Floats v[kVectors];
        ADAMAS_UNROLL
        for (int c = 0; c < kVectors; ++c)
          v[c] = load_floats<Kv, kLanes>(tile.value[i] + e + c * kLanes);
        ADAMAS_UNROLL
        for (int q = 0; q < kQueries; ++q) {
          ADAMAS_UNROLL
          for (int c = 0; c < kVectors; ++c)
            sum[q][c] += v[c] * weight[q][i];
        }
      }
      ADAMAS_UNROLL
      for (int q = 0; q < kQueries; ++q) {
        ADAMAS_UNROLL
        for (int c = 0; c < kVectors; ++c)
          store(sums[q] + e + c * kLanes, sum[q][c]);
      }
    }
  }
}

/// Adds a tile to the partials of query heads first_head .. first_head + kQueries - 1. `ahead` is prefetched.
template <int kQueries>
ADAMAS_NOINLINE void attend_tile(const Args& args, const Row& row, unsigned chunk, i64 first_head,
                                 const Tile& tile, const Tile* ahead) {
  float query[kQueries][kHeadDim];
  float* sums[kQueries];
  ADAMAS_ROLLED
  for (int q = 0; q < kQueries; ++q) {
    const Query::Raw* const from = static_cast<const Query::Raw*>(args.query) +
                                   row.number * args.query_row_stride +
                                   (first_head + q) * args.query_head_stride;
    ADAMAS_ROLLED
    for (int c = 0; c < kHeadDim; c += kLanes)
      store(&query[q][c], load_floats<Query, kLanes>(from + c));
    sums[q] = partial_of(args, row.number, first_head + q, chunk);
  }
  float logit[kQueries][kTile], factor[kQueries];
  dot_products<kQueries>(query, tile, ahead, logit);
  ADAMAS_ROLLED
  for (int q = 0; q < kQueries; ++q) {
    PartialState state = load<PartialState>(sums[q] + kValueDim);
    factor[q] = weigh(args, logit[q], tile.count, state);
    store(sums[q] + kValueDim, state);
  }
  add_values<kQueries>(logit, factor, tile, ahead, sums);
}

#pragma clang fp contract(off)

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_attend(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (row.visible() <= 0) return;
  const i64 first_head = i64(y) * kGroup;
  const bool one_list = kSelectionsPerKvHead == 1 || attends_all(*args, row);
  const int lists = one_list ? 1 : kGroup;

  for (int q = 0; q < kGroup; ++q) {
    if (i64(x) < chunks_of(*args, row, first_head + q))
      clear_partial(partial_of(*args, row.number, first_head + q, x));
  }

  // Tiles of all lists in a row, so that the first tile of a list is prefetched during the last of the one
  // before.
  u32 status = 0;
  i64 attended = 0;
  Tile tiles[2];
  int list_number = -1, next_list = 0;
  i64 next_from = 0;
  TokenList list = list_of(*args, row, y * kSelectionsPerKvHead, x);
  auto fill_next = [&](Tile& tile) {
    tile.count = 0;
    while (next_list < lists && tile.count == 0) {
      if (next_from >= list.count) {
        if (++next_list < lists) list = list_of(*args, row, y * kSelectionsPerKvHead + next_list, x);
        next_from = 0;
        continue;
      }
      fill_tile(*args, row, y, list, next_from, tile, status);
      next_from += kTile;
    }
    return next_list;
  };
  list_number = fill_next(tiles[0]);
  prefetch_rows<kHeadDim>(tiles[0].key, 0, tiles[0].count);
  prefetch_rows<kValueDim>(tiles[0].value, 0, tiles[0].count);
  ADAMAS_ROLLED
  for (int current = 0; tiles[current].count > 0; current ^= 1) {
    const int number = list_number;
    Tile& tile = tiles[current];
    Tile& next = tiles[current ^ 1];
    list_number = fill_next(next);
    if (one_list) {
      constexpr int kRest = kGroup % kHeadsTogether;
      const Tile* ahead = &next;
      ADAMAS_ROLLED
      for (int q = 0; q + kHeadsTogether <= kGroup; q += kHeadsTogether, ahead = nullptr) {
        attend_tile<kHeadsTogether>(*args, row, x, first_head + q, tile, ahead);
      }
      if constexpr (kRest > 0) attend_tile<kRest>(*args, row, x, first_head + kGroup - kRest, tile, ahead);
      attended += i64(tile.count) * kGroup;
    } else {
      attend_tile<1>(*args, row, x, first_head + number, tile, &next);
      attended += tile.count;
    }
  }
  report(*args, status);
  count(*args, &adamas_abi::Counters::tokens_attended, attended);
}
