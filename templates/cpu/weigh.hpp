// weigh: the logits of a tile -> softmax weights, with running maxima and sums.
#pragma once

#include "templates/cpu/math.hpp"

namespace adamas_cpu {

#pragma clang fp contract(fast)

constexpr int kTile = 64;  // tokens

/// Lane i of the result: all lanes of v[i] in one, two at a time joined by `join`, which must not care for
/// their order. A shuffle and a blend bring two vectors' lanes face to face where two shuffles would cost
/// more; none of this is what the compiler would turn into horizontal additions, which are slow on most
/// machines.
template <class Join>
ADAMAS_INLINE F32x8 join_lanes(const F32x8 (&v)[8], const Join& join) {
  F32x8 fours[4], twos[2];
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    fours[i] = join(__builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 12, 13, 14, 15),
                    __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 8, 9, 10, 11));
  }
  ADAMAS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const F32x8 a = fours[2 * i], b = fours[2 * i + 1];
    twos[i] = join(__builtin_shufflevector(a, b, 0, 1, 10, 11, 4, 5, 14, 15),
                   __builtin_shufflevector(a, b, 2, 3, 8, 9, 6, 7, 12, 13));
  }
  return join(__builtin_shufflevector(twos[0], twos[1], 0, 2, 9, 11, 4, 6, 13, 15),
              __builtin_shufflevector(twos[0], twos[1], 1, 3, 8, 10, 5, 7, 12, 14));
}
ADAMAS_INLINE F32x8 sum_lanes(const F32x8 (&v)[8]) {
  return join_lanes(v, [](F32x8 a, F32x8 b) { return a + b; });
}
ADAMAS_INLINE F32x8 largest_lanes(const F32x8 (&v)[8]) {
  return join_lanes(v, [](F32x8 a, F32x8 b) { return a > b ? a : b; });
}

ADAMAS_INLINE F32x8 sum_lanes(const F32x16 (&v)[8]) {
  F32x8 halves[8];
  ADAMAS_UNROLL
  for (int i = 0; i < 8; ++i)
    halves[i] = v[i].lo + v[i].hi;
  return sum_lanes(halves);
}

/// The same of 16: the lanes of vectors i and i + 8 first, then both halves as above.
ADAMAS_INLINE F32x16 sum_lanes(const F32x16 (&v)[16]) {
  F32x16 eights[8], fours[4], twos[2];
  ADAMAS_UNROLL
  for (int i = 0; i < 8; ++i) {
    const F32x16 a = v[i], b = v[i + 8];
    eights[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31) +
                __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23);
  }
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    const F32x16 a = eights[i], b = eights[i + 4];
    fours[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 20, 21, 22, 23, 8, 9, 10, 11, 28, 29, 30, 31) +
               __builtin_shufflevector(a, b, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  }
  ADAMAS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const F32x16 a = fours[2 * i], b = fours[2 * i + 1];
    twos[i] = __builtin_shufflevector(a, b, 0, 1, 18, 19, 4, 5, 22, 23, 8, 9, 26, 27, 12, 13, 30, 31) +
              __builtin_shufflevector(a, b, 2, 3, 16, 17, 6, 7, 20, 21, 10, 11, 24, 25, 14, 15, 28, 29);
  }
  const F32x16 a = twos[0], b = twos[1];
  return __builtin_shufflevector(a, b, 0, 2, 17, 19, 4, 6, 21, 23, 8, 10, 25, 27, 12, 14, 29, 31) +
         __builtin_shufflevector(a, b, 1, 3, 16, 18, 5, 7, 20, 22, 9, 11, 24, 26, 13, 15, 28, 30);
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
