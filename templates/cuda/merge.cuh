// merge: partial sums of all chunks of a row -> output and log-sum-exp. The chunks of a list are added in
// ascending order. Those of a row that attends to all may be many: they are dealt to kMergeSlices slices in
// turn, a slice adds its chunks in ascending order, then the slices are added in theirs. The number of slices
// follows from value_dim, so a row's arithmetic depends on its own tokens only.
#pragma once

#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kColumnPairs = kValueDim / 2;
constexpr int kMergeSlices = kMergeThreads / kColumnPairs;
static_assert(kMergeSlices >= 1, "a thread merges one pair of columns");

struct MergeShared {
  float largest[kMergeThreads / kWarp];
  float weights[kMergeSlices];
  float sums[kMergeSlices][kValueDim];
};

/// Chunks of the row and query head, as attend cut them.
__device__ __forceinline__ int chunks_of_row(const Args& args, const Row& row, int row_index,
                                             int query_head) {
  if (has_dense_chunks(args, row)) return min((row.visible + kDenseChunk - 1) / kDenseChunk, args.chunks);
  const int tokens =
      attends_to_all(args, row) ? row.visible : selected_tokens(args, row_index, query_head / kHeadsPerList);
  return (tokens + kChunk - 1) / kChunk;
}

/// The largest logit of all chunks; every thread gets it.
__device__ __forceinline__ float largest_logit(const float* partial, int chunks, MergeShared& shared) {
  float largest = negative_infinity();
#pragma unroll 1
  for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks; chunk += kMergeThreads) {
    largest = fmaxf(largest, partial[chunk * static_cast<i64>(kPartialFloats) + kValueDim]);
  }
  largest = max_over_warp(largest);
  if (lane_index() == 0) shared.largest[warp_index()] = largest;
  __syncthreads();
#pragma unroll 1
  for (int warp = 0; warp < kMergeThreads / kWarp; ++warp) {
    largest = fmaxf(largest, shared.largest[warp]);
  }
  return largest;
}

/// Sums of this thread's slice, two columns and the weights, into shared memory.
__device__ __forceinline__ void sum_slice(const float* partial, int chunks, float base, MergeShared& shared) {
  const int slice = static_cast<int>(threadIdx.x) / kColumnPairs,
            column = static_cast<int>(threadIdx.x) % kColumnPairs * 2;
  if (slice < kMergeSlices) {
    float first = 0.0f, second = 0.0f, weights = 0.0f;
#pragma unroll 4
    for (int chunk = slice; chunk < chunks; chunk += kMergeSlices) {
      const float* sums = partial + chunk * static_cast<i64>(kPartialFloats);
      const float2 pair = *reinterpret_cast<const float2*>(sums + column);
      const float factor = __expf(sums[kValueDim] - base);
      first += factor * pair.x;
      second += factor * pair.y;
      weights += factor * sums[kValueDim + 1];
    }
    shared.sums[slice][column] = first;
    shared.sums[slice][column + 1] = second;
    if (column == 0) shared.weights[slice] = weights;
  }
  __syncthreads();
}

/// What the counters learn of one query head of a row.
__device__ __forceinline__ void count_head(const Args& args, const Row& row) {
  count_row(args, row, 1);
  if (args.counters == nullptr || row.visible == 0) return;
  if (args.all_tokens != 0) {
    count(args.all_tokens == 1 ? args.counters->dense_requested : args.counters->dense_background, 1);
  } else if (attends_to_all(args, row)) {
    count(args.counters->dense_short, 1);
  }
}

/// Grid: y = query head, z = row. Rows without tokens get zeros and -inf.
extern "C" __global__ void __launch_bounds__(kMergeThreads, 1)
    adamas_merge(const __grid_constant__ Args args) {
  __shared__ MergeShared shared;
  const int query_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const Row row = load_row(args, row_index);
  const int chunks = row.visible == 0 ? 0 : chunks_of_row(args, row, row_index, query_head);
  const float* partial = partial_sums(args, row_index, query_head, 0);
  const bool sliced = has_dense_chunks(args, row);
  Merged merged = {};
  if (sliced) {
    merged.largest = largest_logit(partial, chunks, shared);
    sum_slice(partial, chunks, exponent_base(merged.largest), shared);
#pragma unroll 1
    for (int slice = 0; slice < kMergeSlices; ++slice) {
      merged.weights += shared.weights[slice];
    }
  }
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < kValueDim; column += kMergeThreads) {
    if (sliced) {
      merged.sum = 0.0f;
      for (int slice = 0; slice < kMergeSlices; ++slice) {
        merged.sum += shared.sums[slice][column];
      }
    } else {
      merged = merge_partials(partial, kPartialFloats, chunks, column);
    }
    store_output(args, row_index, query_head, column, merged);
  }
  if (threadIdx.x == 0) count_head(args, row);
}

}  // namespace adamas_cuda
