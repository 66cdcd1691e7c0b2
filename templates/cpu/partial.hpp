// Partial results of attention: per row, query head and chunk the unnormalised sum of values, then the
// running maximum of the logits and the sum of exp(logit - maximum).
#pragma once

#include "templates/cpu/convert.hpp"
#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

struct PartialState {
  float max;
  float sum;
};

/// The maximum of no logits: finite, so that a difference of two maxima is never NaN.
constexpr float kNoLogit = -3.4028234663852886e38f;

ADAMAS_INLINE float* partial_of(const Args& args, i64 row, i64 query_head, i64 chunk) {
  return args.partial + ((row * args.kv_heads * kGroup + query_head) * args.chunks + chunk) * (kValueDim + 2);
}

ADAMAS_INLINE void clear_partial(float* partial) {
  ADAMAS_ROLLED
  for (int e = 0; e < kValueDim; e += 8)
    store(partial + e, F32x8(0.0f));
  store(partial + kValueDim, PartialState{kNoLogit, 0.0f});
}

/// Tokens that list `number` (row * selections + selection) holds, as far as the Spec allows.
ADAMAS_INLINE i64 listed_tokens(const Args& args, i64 number) {
  return smaller(larger(i64(args.counts[number]), i64(0)), i64(kBudget));
}

/// Chunks of one query head of a row.
ADAMAS_FUNCTION i64 chunks_of(const Args& args, const Row& row, i64 query_head) {
  if (row.visible() <= 0) return 0;
  i64 chunks;
  if (attends_all(args, row)) {
    chunks = ceil_div(row.visible(), kDenseChunk);
  } else {
    const i64 selections = args.kv_heads * kSelectionsPerKvHead;
    const i64 selection = kKvHeadScope ? query_head / kGroup : query_head;
    chunks = ceil_div(listed_tokens(args, row.number * selections + selection), kChunk);
  }
  return smaller(chunks, i64(args.chunks));
}

}  // namespace adamas_cpu
