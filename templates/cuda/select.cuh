// select: order keys -> the positions of the budget's best tokens, ascending. An exact radix search finds the
// order key of the last token that fits; one pass over the keys then lists the tokens above it and the latest
// of those equal to it. Only integers are counted, so the answer does not depend on the order in which
// threads arrive.
#pragma once

#include "templates/cuda/scan.cuh"

namespace adamas_cuda {

constexpr int kDigitValues = 1 << kDigitBits;
constexpr int kSelectWarps = kThreads / kWarp;
constexpr int kKeysPerLoad = 16 / static_cast<int>(sizeof(OrderKey));
constexpr int kUnseen = -1;  ///< in place of the order key of a token that the row does not see

struct SelectShared {
  unsigned histogram[kDigitValues];
  unsigned warp_sums[kSelectWarps];
  int digit;       ///< the digit in which the search goes on
  unsigned above;  ///< tokens with a better digit
  unsigned equal;  ///< tokens with this digit
};

constexpr int kTileTokens = kThreads * kKeysPerLoad;  ///< tokens that the block looks at together

/// The order keys of kKeysPerLoad positions from `start` (a multiple of kKeysPerLoad) on, as they lie in
/// memory. The loops below fetch one tile ahead.
__device__ __forceinline__ uint4 fetch_order_keys(const OrderKey* keys, const Row& row, int start) {
  return start <= row.own ? __ldg(reinterpret_cast<const uint4*>(keys + start)) : uint4{0, 0, 0, 0};
}

/// Fetched order keys, with forced and unseen tokens told apart.
__device__ __forceinline__ void unpack_order_keys(const uint4& fetched, const Row& row, int start,
                                                  int (&out)[kKeysPerLoad]) {
  union {
    uint4 words;
    OrderKey keys[kKeysPerLoad];
  } vector;
  vector.words = fetched;
#pragma unroll
  for (int i = 0; i < kKeysPerLoad; ++i) {
    const int position = start + i;
    const bool forced = position < kSink || position > row.own - kRecent;
    const int key = forced ? kKeyForced : static_cast<int>(vector.keys[i]);
    out[i] = position >= row.first && position <= row.own ? key : kUnseen;
  }
}

/// Finds the digit at which the count of better digits first reaches `wanted`: the best digit d with
/// #(digits > d) < wanted <= #(digits >= d). All threads; the result is in `shared` after the closing
/// barrier.
__device__ __forceinline__ void find_digit(SelectShared& shared, unsigned wanted) {
  constexpr int kRows = kDigitValues / kWarp;  // a row: 32 neighbouring digits, one a lane
  constexpr int kRowsPerWarp = (kRows + kSelectWarps - 1) / kSelectWarps;
  // Warp w owns the w-th stretch of rows, counted from the best digits.
  const int top = kRows - 1 - warp_index() * kRowsPerWarp;
  unsigned sum = 0;
#pragma unroll 1
  for (int i = 0; i < kRowsPerWarp; ++i) {
    if (top - i >= 0) sum += shared.histogram[(top - i) * kWarp + lane_index()];
  }
  sum = static_cast<unsigned>(sum_over_warp(static_cast<int>(sum)));
  if (lane_index() == 0) shared.warp_sums[warp_index()] = sum;
  __syncthreads();
  unsigned above = 0;
#pragma unroll 1
  for (int warp = 0; warp < warp_index(); ++warp) {
    above += shared.warp_sums[warp];
  }
  if (above < wanted && wanted <= above + sum) {  // one warp: the digit is in its stretch
#pragma unroll 1
    for (int i = 0; i < kRowsPerWarp && top - i >= 0; ++i) {
      // Reversed, so that lane 0 has the best digit of the row.
      const int digit = (top - i) * kWarp + kWarp - 1 - lane_index();
      const unsigned equal = shared.histogram[digit];
      const unsigned up_to = above + inclusive_sum_over_warp(equal);
      if (up_to - equal < wanted && wanted <= up_to) {  // at most one lane
        shared.digit = digit;
        shared.above = up_to - equal;
        shared.equal = equal;
      }
      above = __shfl_sync(kAllLanes, up_to, kWarp - 1);
      if (above >= wanted) break;
    }
  }
  __syncthreads();
}

/// What separates the selected tokens from the others.
struct Threshold {
  int key;           ///< tokens above it are selected
  unsigned skipped;  ///< of the tokens equal to it, so many first ones are not
};

/// Radix search, most significant digit first, for the order key of rank `wanted` (1 = best) among the
/// visible tokens.
__device__ __forceinline__ Threshold find_threshold(const OrderKey* keys, const Row& row, int begin,
                                                    unsigned wanted, SelectShared& shared) {
  int prefix = 0;  // digits found so far
#pragma unroll 1
  for (int digit = kDigits - 1; digit >= 0; --digit) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kDigitValues; i += kThreads) {
      shared.histogram[i] = 0;
    }
    __syncthreads();
    int start = begin + static_cast<int>(threadIdx.x) * kKeysPerLoad;
    uint4 fetched = fetch_order_keys(keys, row, start);
#pragma unroll 1
    for (; start <= row.own; start += kTileTokens) {
      int loaded[kKeysPerLoad];
      unpack_order_keys(fetched, row, start, loaded);
      fetched = fetch_order_keys(keys, row, start + kTileTokens);
#pragma unroll
      for (int i = 0; i < kKeysPerLoad; ++i) {
        const bool in_play = loaded[i] != kUnseen && loaded[i] >> ((digit + 1) * kDigitBits) == prefix;
        if (in_play) atomicAdd(&shared.histogram[loaded[i] >> (digit * kDigitBits) & (kDigitValues - 1)], 1u);
      }
    }
    __syncthreads();
    find_digit(shared, wanted);
    prefix = prefix << kDigitBits | shared.digit;
    wanted -= shared.above;
  }
  return {prefix, shared.equal - wanted};
}

/// Lists every visible token above the threshold and the latest ones equal to it, in ascending order of
/// position.
/// @param positions[out]  as many as the budget
__device__ __forceinline__ void list_tokens(const OrderKey* keys, const Row& row, int begin,
                                            Threshold threshold, int* positions, SelectShared& shared) {
  unsigned above_before = 0, equal_before = 0;  // in the tiles behind us
  int start = begin + static_cast<int>(threadIdx.x) * kKeysPerLoad;
  uint4 fetched = fetch_order_keys(keys, row, start);
#pragma unroll 1
  for (int tile = begin; tile <= row.own; tile += kTileTokens, start += kTileTokens) {
    int loaded[kKeysPerLoad];
    unpack_order_keys(fetched, row, start, loaded);
    fetched = fetch_order_keys(keys, row, start + kTileTokens);
    // Two counts in one word: a tile has fewer than 2^16 tokens.
    unsigned mine = 0;
#pragma unroll
    for (int i = 0; i < kKeysPerLoad; ++i) {
      mine += loaded[i] > threshold.key ? 1u : loaded[i] == threshold.key ? 1u << 16 : 0u;
    }
    unsigned total;
    const unsigned before = exclusive_sum_over_block<kThreads>(mine, shared.warp_sums, total);
    unsigned above = above_before + (before & 0xffffu), equal = equal_before + (before >> 16);
#pragma unroll
    for (int i = 0; i < kKeysPerLoad; ++i) {
      const bool is_above = loaded[i] > threshold.key, is_equal = loaded[i] == threshold.key;
      const unsigned taken =
          equal > threshold.skipped ? equal - threshold.skipped : 0;  // equal ones listed so far
      if (is_above || (is_equal && equal >= threshold.skipped)) positions[above + taken] = start + i;
      above += is_above;
      equal += is_equal;
    }
    above_before += total & 0xffffu;
    equal_before += total >> 16;
  }
}

/// The caller's copy of a finished list: positions, or physical slots.
__device__ __forceinline__ void copy_positions(const Args& args, const Row& row, const int* positions,
                                               int* out) {
  unsigned status = 0;
  const Places places = places_of_sequence(args, row.sequence, status);
#pragma unroll 1
  for (int rank = static_cast<int>(threadIdx.x); rank < kBudget; rank += kThreads) {
    const int position = positions[rank];
    const bool as_slot = args.write_slots != 0 && position >= 0;
    out[rank] = as_slot ? slot_of(args, place_of_position(places, position, status)) : position;
  }
  report(args, status);
}

/// Grid: y = selection, z = row.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_select(const __grid_constant__ Args args) {
  __shared__ SelectShared shared;
  let_next_kernel_start();
  const int selection = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const Row row = load_row(args, row_index);
  if (needs_no_lists(args, row)) return;
  const int selected = min(row_budget(args, row_index), row.visible);
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
  int* positions = args.positions + index * kBudget;
  if (selected > 0 && selected < row.visible) {
    const OrderKey* keys = order_keys(args, row_index, selection);
    const int begin = row.first / kKeysPerLoad * kKeysPerLoad;
    const Threshold threshold = find_threshold(keys, row, begin, selected, shared);
    list_tokens(keys, row, begin, threshold, positions, shared);
  } else {  // all or nothing
#pragma unroll 1
    for (int rank = static_cast<int>(threadIdx.x); rank < selected; rank += kThreads) {
      positions[rank] = row.first + rank;
    }
  }
#pragma unroll 1
  for (int rank = selected + static_cast<int>(threadIdx.x); rank < kBudget; rank += kThreads) {
    positions[rank] = -1;
  }
  if (args.out_positions != nullptr) {
    __syncthreads();
    copy_positions(args, row, positions, args.out_positions + index * kBudget);
  }
  if (threadIdx.x == 0) {
    args.counts[index] = selected;
    if (args.out_counts != nullptr) args.out_counts[index] = selected;
    // With an output the merge stage ends the operation, and counts.
    if (args.out == nullptr) count_row(args, row, kGroup / kSelectionsPerKvHead);
  }
}

}  // namespace adamas_cuda
