// A query head's integers (dot) or codes (manhattan): what the scan compares with the codes of keys.
#pragma once

#include "templates/cuda/codes.cuh"

namespace adamas_cuda {

/// Whether every element that the warp holds is a number.
__device__ __forceinline__ bool all_finite(const float (&x)[kWords]) {
  bool finite = true;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    finite = finite && (__float_as_uint(x[j]) & 0x7f800000u) != 0x7f800000u;
  }
  return __all_sync(kAllLanes, finite) != 0;
}

/// x / y as IEEE arithmetic rounds it (Markstein 1990), without a branch for exponents at the ends of their
/// range: for 2^-90 < y < 2^90, and a quotient that is below 2^20 and matters only where it is no subnormal.
/// @param inverse  1 / y, to within a unit in the last place
__device__ __forceinline__ float quotient(float x, float y, float inverse) {
  float guess = __fmul_rn(x, inverse);
  guess = __fmaf_rn(__fmaf_rn(-y, guess, x), inverse, guess);
  return __fmaf_rn(__fmaf_rn(-y, guess, x), inverse, guess);
}

/// dot: integers -kQueryMax..kQueryMax of a finite rotated query; all 0 when its step is 0.
__device__ __forceinline__ void quantize(const float (&rotated)[kWords], int (&integers)[kWords]) {
  float largest = 0.0f;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    largest = fmaxf(largest, fabsf(rotated[j]));
  }
  // Magnitudes of numbers are in the order of their bits.
  largest = __uint_as_float(__reduce_max_sync(kAllLanes, __float_as_uint(largest)));
  const float step = __fdiv_rn(largest, static_cast<float>(kQueryMax));
  // Powers of two change no quotient that is rounded to a whole number.
  const float factor = step < 0x1p-60f ? 0x1p64f : step > 0x1p60f ? 0x1p-64f : 1.0f;
  const float divisor = step * factor, guess = __fdividef(1.0f, divisor);
  const float inverse = __fmaf_rn(__fmaf_rn(-divisor, guess, 1.0f), guess, guess);
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    integers[j] = 0;
    if (step != 0.0f) {
      const float ratio = quotient(rotated[j] * factor, divisor, inverse);
      // Clamping to whole numbers before rounding gives what rounding before clamping gives.
      const float clamped =
          fminf(fmaxf(ratio, -static_cast<float>(kQueryMax)), static_cast<float>(kQueryMax));
      integers[j] = __float2int_rn(clamped);
    }
  }
}

/// A query head as it lies in memory, held by a warp: element 32 j + lane in register j.
struct RawQuery {
  RawElement<kQueryType> elements[kWords];
};

/// Loads without waiting.
__device__ __forceinline__ void load_query(const Args& args, int row_index, int query_head, RawQuery& raw) {
  const i64 query = row_index * args.query_row_stride + query_head * args.query_head_stride;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    raw.elements[j] = holds_element(j)
                          ? load_raw_element<kQueryType>(args.query, query + j * kWarp + lane_index())
                          : RawElement<kQueryType>{};
  }
}

__device__ __forceinline__ void widen_query(const RawQuery& raw, float (&x)[kWords]) {
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    x[j] = widen_element<kQueryType>(raw.elements[j]);
  }
}

/// Integers or codes of one query head, as they lie in `x`. Written to query_codes too, if the caller wants
/// them.
/// @param x        the query; rotated on return
/// @param scratch  2 kHeadDim floats of shared memory of this warp, if rotate needs them
__device__ __forceinline__ void query_integers(const Args& args, int row_index, int query_head,
                                               float (&x)[kWords], float* scratch, int (&integers)[kWords]) {
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    integers[j] = 0;
  }
  rotate(x, scratch);
  if (all_finite(x)) {
    if constexpr (kDot) {
      quantize(x, integers);
    } else {
      float thresholds[kBuckets - 1];
      unsigned codes[kWords];
      load_thresholds(args.query_thresholds, query_head / kGroup, thresholds);
      bucketize(x, thresholds, codes);
#pragma unroll
      for (int j = 0; j < kWords; ++j) {
        integers[j] = static_cast<int>(codes[j]);
      }
    }
  }
  if (args.query_codes == nullptr) return;
  signed char* out =
      args.query_codes + (static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head) * kHeadDim;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    if (holds_element(j)) out[j * kWarp + lane_index()] = static_cast<signed char>(integers[j]);
  }
}

}  // namespace adamas_cuda
