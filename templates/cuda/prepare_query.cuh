// prepare_query: a query head -> its integers or codes as bit planes, the form in which the scan meets the
// keys.
#pragma once

#include "templates/cuda/codes.cuh"

namespace adamas_cuda {

constexpr int kPrepareWarps = kPrepareThreads / kWarp;

__device__ __forceinline__ PreparedQuery* prepared_query(const Args& args, int row_index, int query_head) {
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head;
  return reinterpret_cast<PreparedQuery*>(args.prepared + index * kPreparedBytes);
}

/// Whether every element that the warp holds is a number.
__device__ __forceinline__ bool all_finite(const float (&x)[kWords]) {
  bool finite = true;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    finite = finite && (__float_as_uint(x[j]) & 0x7f800000u) != 0x7f800000u;
  }
  return __all_sync(kAllLanes, finite) != 0;
}

/// dot: integers -kQueryMax..kQueryMax of a finite rotated query; all 0 when its step is 0.
__device__ __forceinline__ void quantize(const float (&rotated)[kWords], int (&integers)[kWords]) {
  float largest = 0.0f;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    largest = fmaxf(largest, fabsf(rotated[j]));
  }
  const float step = __fdiv_rn(max_over_warp(largest), static_cast<float>(kQueryMax));
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    integers[j] = 0;
    if (step != 0.0f) {
      const float ratio = __fdiv_rn(rotated[j], step);
      // Clamping to whole numbers before rounding gives what rounding before clamping gives.
      const float clamped =
          fminf(fmaxf(ratio, -static_cast<float>(kQueryMax)), static_cast<float>(kQueryMax));
      integers[j] = __float2int_rn(clamped);
    }
  }
}

/// Writes the planes and the bias of one query head: what score_words of the generated part reads.
__device__ __forceinline__ void store_prepared(PreparedQuery* prepared, const int (&integers)[kWords]) {
  unsigned bits[kWords];
  int sum = 0;
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    sum += integers[j];
    // Negative integers in two's complement; codes by thermometer: bit t is set when the code exceeds t.
    bits[j] = kDot ? static_cast<unsigned>(integers[j]) : (1u << integers[j]) - 1u;
  }
  sum = sum_over_warp(sum);
#pragma unroll
  for (int plane = 0; plane < kQueryPlanes; ++plane) {
    const unsigned word = plane_words(bits, plane);
    if (lane_index() < kWords) prepared->planes[plane][lane_index()] = word;
  }
  if (lane_index() == 0) prepared->bias = kDot ? kScoreLimit - (kBuckets - 1) * sum : kScoreLimit;
}

/// Grid: y = K/V head, z = row. A warp prepares one query head at a time.
extern "C" __global__ void __launch_bounds__(kPrepareThreads, 1)
    adamas_prepare_query(const __grid_constant__ Args args) {
  __shared__ float scratch[kPrepareWarps][kRotateScratch];
  const int kv_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  for (int member = warp_index(); member < kGroup; member += kPrepareWarps) {
    const int query_head = kv_head * kGroup + member;
    const i64 query = row_index * args.query_row_stride + query_head * args.query_head_stride;
    float x[kWords];
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      x[j] = holds_element(j) ? load_element<kQueryType>(args.query, query + j * kWarp + lane_index()) : 0.0f;
    }
    rotate(x, scratch[warp_index()]);

    int integers[kWords] = {};
    if (all_finite(x)) {
      if constexpr (kDot) {
        quantize(x, integers);
      } else {
        float thresholds[kBuckets - 1];
        unsigned codes[kWords];
        load_thresholds(args.query_thresholds, kv_head, thresholds);
        bucketize(x, thresholds, codes);
#pragma unroll
        for (int j = 0; j < kWords; ++j) {
          integers[j] = static_cast<int>(codes[j]);
        }
      }
    }
    store_prepared(prepared_query(args, row_index, query_head), integers);
    if (args.query_codes != nullptr) {
      signed char* out =
          args.query_codes + (static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head) * kHeadDim;
#pragma unroll
      for (int j = 0; j < kWords; ++j) {
        if (holds_element(j)) out[j * kWarp + lane_index()] = static_cast<signed char>(integers[j]);
      }
    }
  }
}

}  // namespace adamas_cuda
