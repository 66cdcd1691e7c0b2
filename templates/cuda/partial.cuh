// Partial softmax sums: of a tile or a chunk of tokens, where they lie, and how they become an output.
#pragma once

#include "templates/cuda/row.cuh"

namespace adamas_cuda {

/// One chunk of one query head of one row: value_dim sums of weight * value, then the logit that the weights
/// are relative to, then the sum of weights. The logit is -inf if no token had one above it, NaN if a weight
/// is NaN.
constexpr int kPartialFloats = kValueDim + 2;

/// The sums of a query head of a row, where each has `chunks` of them.
__device__ __forceinline__ float* partials_of_head(const Args& args, int chunks, int row_index,
                                                   int query_head) {
  const i64 list = static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head;
  return args.partial + list * chunks * kPartialFloats;
}

__device__ __forceinline__ float* partial_sums(const Args& args, int row_index, int query_head, int chunk) {
  return partials_of_head(args, args.chunks, row_index, query_head) +
         static_cast<i64>(chunk) * kPartialFloats;
}

/// Tokens in the selection that serves a query head.
__device__ __forceinline__ int selected_tokens(const Args& args, int row_index, int selection) {
  const i64 index = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
  return min(max(args.counts[index], 0), kBudget);
}

/// Tokens of a chunk of a row that attends to all it sees: as many as cut one row, over all its K/V heads,
/// into kDenseBlocks, but no fewer than are worth a block's start, and no more than keep ragged batches in
/// balance.
__device__ __forceinline__ int dense_chunk_tokens(const Args& args, const Row& row) {
  const i64 kv_heads = args.kv_heads / kHeadParts;
  const i64 share = (row.visible * kv_heads + (kDenseBlocks - 1)) / kDenseBlocks;
  const i64 whole = (share + (kDenseChunkStep - 1)) / kDenseChunkStep * kDenseChunkStep;
  return static_cast<int>(min(max(whole, i64{kLeastDenseChunk}), i64{kDenseChunk}));
}

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }

/// The logit that exponentials are taken relative to: the largest, or 0 where that is -inf.
__device__ __forceinline__ float exponent_base(float largest) {
  return largest == negative_infinity() ? 0.0f : largest;
}

/// Sums of some columns, relative to the largest logit of all parts.
template <int kColumns>
struct Merged {
  float sums[kColumns];
  float largest, weights;
};

/// Adds `count` partial sums in ascending order, `stride` floats apart, for kColumns neighbouring columns.
/// @tparam kMost  that they may be: if few, all are on their way at once
template <int kMost, int kColumns = 1>
__device__ __forceinline__ Merged<kColumns> merge_partials(const float* first, int stride, int count,
                                                           int column) {
  constexpr int kAtOnce = kMost <= 8 ? kMost : 4;
  Merged<kColumns> merged = {};
  merged.largest = negative_infinity();
#pragma unroll kAtOnce
  for (int i = 0; i < kMost; ++i) {
    if (i < count) merged.largest = fmaxf(merged.largest, first[i * stride + kValueDim]);
  }
  const float base = exponent_base(merged.largest);
#pragma unroll kAtOnce
  for (int i = 0; i < kMost; ++i) {
    if (i >= count) continue;
    const float* partial = first + i * stride;
    const float factor = __expf(partial[kValueDim] - base);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      merged.sums[c] += factor * partial[column + c];
    }
    merged.weights += factor * partial[kValueDim + 1];
  }
  return merged;
}

/// Output and LSE of a query head from its merged sums: one thread a column, and column 0 writes the LSE.
__device__ __forceinline__ void store_output(const Args& args, int row_index, int query_head, int column,
                                             const Merged<1>& merged) {
  const float base = exponent_base(merged.largest);
  float denominator = merged.weights;
  if constexpr (kSinkLogits) denominator += __expf(__ldg(args.sink_logits + query_head) - base);
  const i64 out = row_index * args.out_row_stride + query_head * args.out_head_stride;
  float value = merged.weights == 0.0f ? 0.0f : __fdividef(merged.sums[0], denominator);
  if constexpr (kScaled) value *= value_scale(args, query_head / kGroup);
  store_element<kOutType>(args.out, out + column, value);
  if constexpr (kLse) {
    const i64 index = static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head;
    if (column == 0 && args.lse != nullptr) args.lse[index] = base + __logf(merged.weights);
  }
}

}  // namespace adamas_cuda
