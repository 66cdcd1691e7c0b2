// scan: codes -> order keys. A thread loads one token's codes once and scores it for the whole group of query
// heads.
#pragma once

#include "templates/cuda/prepare_query.cuh"

namespace adamas_cuda {

constexpr int kUnseenScore = -2147483647 - 1;  ///< INT32_MIN: score of a token that the row does not see

/// First order key of a selection.
__device__ __forceinline__ OrderKey* order_keys(const Args& args, int row_index, int selection) {
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
  return reinterpret_cast<OrderKey*>(args.keys_of_scores) + index * args.score_stride;
}

/// Where the scores of a selection go when the caller wants them.
__device__ __forceinline__ int* raw_scores(const Args& args, int row_index, int selection) {
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
  return args.out_scores + index * args.max_tokens;
}

/// The group's prepared queries, into shared memory.
__device__ __forceinline__ void load_group(const Args& args, int row_index, int kv_head,
                                           PreparedQuery (&queries)[kGroup]) {
  constexpr int kQueryWords = sizeof(PreparedQuery) / sizeof(unsigned);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kGroup * kQueryWords; i += kThreads) {
    const int member = i / kQueryWords, word = i % kQueryWords;
    const PreparedQuery* prepared = prepared_query(args, row_index, kv_head * kGroup + member);
    reinterpret_cast<unsigned*>(&queries[member])[word] = reinterpret_cast<const unsigned*>(prepared)[word];
  }
  __syncthreads();
}

/// Writes the score of a visible token for one selection.
__device__ __forceinline__ void store_score(const Args& args, int row_index, int selection, int position,
                                            int key) {
  order_keys(args, row_index, selection)[position] = static_cast<OrderKey>(key);
  if (args.out_scores != nullptr) {
    raw_scores(args, row_index, selection)[position] = kDot ? key - kScoreLimit : kScoreLimit - key;
  }
}

/// Order key of one token for one query head. Wide rows are scored piece by piece, so that codes and planes
/// fit the registers; the pieces of a second query head come from the first-level cache.
__device__ __forceinline__ int order_key(const Args& args, int kv_head, Place place,
                                         const PreparedQuery& query) {
  int key = query.bias;
#pragma unroll 1
  for (int from = 0; from < kWords; from += kWordsAtOnce) {
    unsigned codes[kPlanes][kWordsAtOnce];
    load_codes(args, kv_head, place, from, codes);
    key += score_words(codes, query, from);
  }
  return key;
}

/// Scores one visible token for the selections of a K/V head.
__device__ __forceinline__ void score_token(const Args& args, int row_index, int kv_head, int position,
                                            Place place, const PreparedQuery (&queries)[kGroup]) {
  int best = -1;  // below every order key
#pragma unroll 1
  for (int member = 0; member < kGroup; ++member) {
    const int key = order_key(args, kv_head, place, queries[member]);
    if constexpr (kSelectionsPerKvHead == 1) {
      best = max(best, key);
    } else {
      store_score(args, row_index, kv_head * kGroup + member, position, key);
    }
  }
  if constexpr (kSelectionsPerKvHead == 1) store_score(args, row_index, kv_head, position, best);
}

/// Grid: x = tiles of kScanTile positions, y = K/V head, z = row.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_scan(const __grid_constant__ Args args) {
  __shared__ PreparedQuery queries[kGroup];
  begin_stage();
  const int kv_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const Row row = load_row(args, row_index);
  const i64 tile = static_cast<i64>(blockIdx.x) * kScanTile;
  if (tile >= row.length || needs_no_lists(args, row)) return;
  const int begin = static_cast<int>(tile);
  const int end = min(begin + kScanTile, row.length);

  // Positions that the row sees in this tile: [first, past).
  const int first = max(begin, row.first), past = row.visible > 0 ? min(end, row.own + 1) : begin;
  if (first < past) {
    load_group(args, row_index, kv_head, queries);
    unsigned status = 0;
    const Places places = places_of_sequence(args, row.sequence, status);
#pragma unroll 1
    for (int position = first + static_cast<int>(threadIdx.x); position < past; position += kThreads) {
      const Place place = place_of_position(places, position, status);
      score_token(args, row_index, kv_head, position, place, queries);
    }
    report(args, status);
    if (threadIdx.x == 0 && args.counters != nullptr) count(args.counters->tokens_scanned, past - first);
  }
  if (args.out_scores == nullptr) return;
#pragma unroll 1
  for (int position = begin + static_cast<int>(threadIdx.x); position < end; position += kThreads) {
    if (position >= first && position < past) continue;
#pragma unroll 1
    for (int s = 0; s < kSelectionsPerKvHead; ++s) {
      raw_scores(args, row_index, kv_head * kSelectionsPerKvHead + s)[position] = kUnseenScore;
    }
  }
}

}  // namespace adamas_cuda
