// A lower bound of a list's threshold, the score of the budget's last token: the budget's largest of many
// maxima, which warps send while they still scan, so that few tokens need to be looked at again.
#pragma once

#include "templates/cuda/decode_scan.cuh"

namespace adamas_cuda {

/// How many of a warp's maxima reach each of kScores scores.
template <int kScores>
__device__ __forceinline__ void count_maxima(const Maximum (&maxima)[kMaximaWords / kWarp],
                                             const unsigned (&scores)[kScores], int (&reaching)[kScores]) {
#pragma unroll
  for (int s = 0; s < kScores; ++s) {
    unsigned counts = 0;
    const unsigned both = scores[s] * 0x10001u;
#pragma unroll
    for (const Maximum maximum : maxima) {
      if constexpr (kNarrowScores) {  // both halves at once: bit 15 survives where the half is not below
        counts += (((maximum | 0x80008000u) - both) & 0x80008000u) >> 15;
      } else {
        counts += maximum >= scores[s];
      }
    }
    reaching[s] =
        sum_over_warp(static_cast<int>(kNarrowScores ? (counts & 0xffffu) + (counts >> 16) : counts));
  }
}

/// Begins the search for one selection's threshold. By one warp.
__device__ __forceinline__ void bound_threshold(const Cluster& cluster, int selection, int wanted,
                                                DecodeShared& shared) {
  const int filled = maxima_words(cluster) * kDecodeWarps * static_cast<int>(cluster.blocks);
  Maximum maxima[kMaximaWords / kWarp];
  unsigned most = 0, least = ~0u;
#pragma unroll
  for (int i = 0; i < kMaximaWords / kWarp; ++i) {
    const int word = i * kWarp + lane_index();
    const Maximum maximum = word < filled ? shared.maxima[selection][word] : 0;
    const unsigned low = kNarrowScores ? maximum & 0xffffu : maximum;
    const unsigned high = kNarrowScores ? maximum >> 16 : maximum;
    most = max(most, max(low, high));
    if (word < filled) least = min(least, min(low, high));
    maxima[i] = maximum;
  }
  most = __reduce_max_sync(kAllLanes, most);
  least = max(__reduce_min_sync(kAllLanes, least), 1u);
  // At least `wanted` maxima, hence tokens, reach `reached`; fewer reach `missed`. A few more than wanted
  // will do.
  unsigned reached = 0, missed = most + 1;
  const int enough = wanted + wanted / 8;
  int reaching[1];
  count_maxima<1>(maxima, {least}, reaching);
  int best = most == 0 ? 0 : reaching[0];
  if (best >= wanted) reached = least;
  // A step is as long as its instructions wait for each other: three scores cost little more than one.
#pragma unroll 1
  while (reached != 0 && best > enough && missed - reached > 1) {
    const unsigned quarter = max((missed - reached) / 4, 1u);
    const unsigned scores[3] = {reached + quarter, min(reached + 2 * quarter, missed - 1),
                                min(reached + 3 * quarter, missed - 1)};
    int counts[3];
    count_maxima(maxima, scores, counts);
#pragma unroll
    for (int s = 2; s >= 0; --s) {
      if (counts[s] < wanted) missed = scores[s];
    }
#pragma unroll
    for (int s = 0; s < 3; ++s) {
      if (counts[s] >= wanted) reached = scores[s], best = counts[s];
    }
  }
  if (lane_index() == 0) {
    const unsigned lowest = max(reached, 1u);  // 0 is no token
    const int bits = 32 - __clz(static_cast<int>(max(most, lowest) - lowest));
    shared.search[selection] = {lowest, kForcedScore + 1, static_cast<unsigned>(max(bits - 8, 0)), 0, 0, 0,
                                0};
  }
}

}  // namespace adamas_cuda
