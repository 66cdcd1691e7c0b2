// merge: partial sums of all chunks of a row -> output and log-sum-exp. The chunks of a list are added in
// ascending order; for those of a row that attends to all see merge_chunks.cuh.
#pragma once

#include "templates/cuda/merge_chunks.cuh"

namespace adamas_cuda {

/// Output of a query head that attends to a list.
__device__ __forceinline__ void merge_list(const Args& args, const Row& row, int row_index, int query_head) {
  int tokens = row.visible;
  if (tokens != 0 && !attends_to_all(args, row)) {
    tokens = selected_tokens(args, row_index, query_head / kHeadsPerList);
  }
  const float* const partial = partial_sums(args, row_index, query_head, 0);
  const int chunks = (tokens + kChunk - 1) / kChunk;
#pragma unroll 1
  for (int column = static_cast<int>(threadIdx.x); column < kValueDim; column += kMergeThreads) {
    store_output(args, row_index, query_head, column,
                 merge_partials<kChunksPerList>(partial, kPartialFloats, chunks, column));
  }
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
  begin_stage();
  const int query_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const Row row = load_row(args, row_index);
  if (has_dense_chunks(args, row)) {
    merge_chunks<kMergeThreads>(args, row_index, query_head, partial_sums(args, row_index, query_head, 0),
                                chunks_of_all(args, row, args.chunks), shared);
  } else {
    merge_list(args, row, row_index, query_head);
  }
  if (threadIdx.x == 0) count_head(args, row);
}

}  // namespace adamas_cuda
