// Partial softmax sums of a chunk of tokens: what attend leaves for merge.
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
  return min(max(__ldg(args.counts + index), 0), kBudget);
}

__device__ __forceinline__ float negative_infinity() { return __uint_as_float(0xff800000u); }

/// The logit that exponentials are taken relative to: the largest, or 0 where that is -inf.
__device__ __forceinline__ float exponent_base(float largest) {
  return largest == negative_infinity() ? 0.0f : largest;
}

}  // namespace adamas_cuda
