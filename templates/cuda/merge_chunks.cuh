// Merging the chunks of a row that attends to all it sees. They may be many: they are dealt to kMergeSlices
// slices in turn, a slice adds its chunks in ascending order, then the slices are added in theirs. The number
// of slices follows from value_dim, so a row's arithmetic depends on its own tokens only.
#pragma once

#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kColumnPairs = kValueDim / 2;
constexpr int kMergeSlices = kMergeThreads / kColumnPairs;
static_assert(kMergeSlices >= 1, "a slice is at least one thread's work");

struct MergeShared {
  float largest[kWarp];  // of warps
  float weights[kMergeSlices];
  float sums[kMergeSlices][kValueDim];
};

/// The largest logit of all chunks; every thread gets it.
template <int kBlockThreads>
__device__ __forceinline__ float largest_logit(const float* partial, int chunks, MergeShared& shared) {
  float largest = negative_infinity();
#pragma unroll 1
  for (int chunk = static_cast<int>(threadIdx.x); chunk < chunks; chunk += kBlockThreads) {
    largest = fmaxf(largest, partial[chunk * static_cast<i64>(kPartialFloats) + kValueDim]);
  }
  largest = max_over_warp(largest);
  if (lane_index() == 0) shared.largest[warp_index()] = largest;
  __syncthreads();
#pragma unroll 1
  for (int warp = 0; warp < kBlockThreads / kWarp; ++warp) {
    largest = fmaxf(largest, shared.largest[warp]);
  }
  return largest;
}

/// Sums of the slices and their weights, into shared memory: two columns of one slice a thread at a time.
template <int kBlockThreads>
__device__ __forceinline__ void sum_slices(const float* partial, int chunks, float base,
                                           MergeShared& shared) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kMergeSlices * kColumnPairs; i += kBlockThreads) {
    const int slice = i / kColumnPairs, column = i % kColumnPairs * 2;
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

/// Output and log-sum-exp of one query head, by all threads of a block. Another head may follow at once.
template <int kBlockThreads>
__device__ __forceinline__ void merge_chunks(const Args& args, int row_index, int query_head,
                                             const float* partial, int chunks, MergeShared& shared) {
  Merged<1> merged = {};
  merged.largest = largest_logit<kBlockThreads>(partial, chunks, shared);
  sum_slices<kBlockThreads>(partial, chunks, exponent_base(merged.largest), shared);
#pragma unroll 1
  for (int slice = 0; slice < kMergeSlices; ++slice) {
    merged.weights += shared.weights[slice];
  }
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < kValueDim; column += kBlockThreads) {
    merged.sums[0] = 0.0f;
    for (int slice = 0; slice < kMergeSlices; ++slice) {
      merged.sums[0] += shared.sums[slice][column];
    }
    store_output(args, row_index, query_head, column, merged);
  }
}

/// Chunks of such a row, of which there are no more than `most`.
__device__ __forceinline__ int chunks_of_all(const Args& args, const Row& row, int most) {
  const int tokens = dense_chunk_tokens(args, row);
  return min((row.visible + tokens - 1) / tokens, most);
}

}  // namespace adamas_cuda
