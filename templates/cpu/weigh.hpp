// weigh: the logits of a tile -> softmax weights, with running maxima and sums.
#pragma once

#include "templates/cpu/math.hpp"

namespace adamas_cpu {

#pragma clang fp contract(fast)

constexpr int kTile = 64;  // tokens

/// Lane i of the result: all lanes of v[i] in one, two at a time joined by `join`. The shuffles are none that
/// the compiler would turn into horizontal additions, which are slow on most machines.
template <class Join>
ADAMAS_INLINE F32x8 join_lanes(const F32x8 (&v)[8], const Join& join) {
  F32x8 fours[4], twos[2];
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    fours[i] = join(__builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11),
                    __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15));
  }
  ADAMAS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const F32x8 a = fours[2 * i], b = fours[2 * i + 1];
    twos[i] = join(__builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13),
                   __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15));
  }
  return join(__builtin_shufflevector(twos[0], twos[1], 0, 1, 8, 9, 4, 5, 12, 13),
              __builtin_shufflevector(twos[0], twos[1], 2, 3, 10, 11, 6, 7, 14, 15));
}
ADAMAS_INLINE F32x8 sum_lanes(const F32x8 (&v)[8]) {
  return join_lanes(v, [](F32x8 a, F32x8 b) { return a + b; });
}
ADAMAS_INLINE F32x8 largest_lanes(const F32x8 (&v)[8]) {
  return join_lanes(v, [](F32x8 a, F32x8 b) { return a > b ? a : b; });
}

/// Logits [kCount][kTile] -> weights exp(logit - max), with the running maxima and sums of their partials.
/// factor[q] is what the sums so far must be multiplied by. Several queries at once, because each is one long
/// chain of operations that wait for each other.
template <int kCount>
ADAMAS_NOINLINE void weigh(const Args& args, float (*logit)[kTile], int tokens, float* maxima, float* sums,
                           float* factor) {
  static_assert(kCount <= 8);
  using Few = Vec<float, kCount>;
  F32x8 most[8], sum[8];
  ADAMAS_UNROLL
  for (int q = 0; q < 8; ++q) {
    most[q] = maxima[q % kCount];
    sum[q] = 0;
  }
  ADAMAS_ROLLED
  for (int i = 0; i < tokens; i += 8) {
    const I32x8 lane = {0, 1, 2, 3, 4, 5, 6, 7};
    const I32x8 used = lane + i < tokens;
    ADAMAS_UNROLL
    for (int q = 0; q < kCount; ++q) {
      F32x8 x = load<F32x8>(logit[q] + i) * args.scale;
      if constexpr (kSoftCap) x = tanh_of(x / args.soft_cap) * args.soft_cap;
      x = used ? x : F32x8(-__builtin_inff());
      store(logit[q] + i, x);
      most[q] = x > most[q] ? x : most[q];
    }
  }
  struct Maxima {
    float of[8];
  };
  const F32x8 top = largest_lanes(most);
  const Maxima max = bits_as<Maxima>(top);
  ADAMAS_ROLLED
  for (int i = 0; i < tokens; i += 8) {
    ADAMAS_UNROLL
    for (int q = 0; q < kCount; ++q) {
      const F32x8 weight = exp_of(load<F32x8>(logit[q] + i) - max.of[q]);
      store(logit[q] + i, weight);
      sum[q] += weight;
    }
  }
  F32x8 before = 0, so_far = 0;
  __builtin_memcpy(&before, maxima, sizeof(Few));
  __builtin_memcpy(&so_far, sums, sizeof(Few));
  const F32x8 kept = exp_of(before - top);  // exactly 1 where the maximum stayed
  const F32x8 total = so_far * kept + sum_lanes(sum);
  __builtin_memcpy(maxima, &top, sizeof(Few));
  __builtin_memcpy(sums, &total, sizeof(Few));
  __builtin_memcpy(factor, &kept, sizeof(Few));
}

#pragma clang fp contract(off)

}  // namespace adamas_cpu
