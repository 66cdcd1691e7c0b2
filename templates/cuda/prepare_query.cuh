// prepare_query: a query head -> its integers or codes as bit planes, the form in which the scan meets the
// keys.
#pragma once

#include "templates/cuda/query.cuh"

namespace adamas_cuda {

constexpr int kPrepareWarps = kPrepareThreads / kWarp;

__device__ __forceinline__ PreparedQuery* prepared_query(const Args& args, int row_index, int query_head) {
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head;
  return reinterpret_cast<PreparedQuery*>(args.prepared + index * kPreparedBytes);
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
  begin_stage();
  const int kv_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  for (int member = warp_index(); member < kGroup; member += kPrepareWarps) {
    const int query_head = kv_head * kGroup + member;
    float x[kWords];
    int integers[kWords];
    RawQuery raw;
    load_query(args, row_index, query_head, raw);
    widen_query(raw, x);
    query_integers(args, row_index, query_head, x, scratch[warp_index()], integers);
    store_prepared(prepared_query(args, row_index, query_head), integers);
  }
}

}  // namespace adamas_cuda
