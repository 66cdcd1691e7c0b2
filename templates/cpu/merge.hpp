// merge: partial sums of a row's chunks -> output and log-sum-exp.
//
// Work item: one query head (y) of one row (z). Chunks are added in ascending order, whatever computed them.
#pragma once

#include "templates/cpu/math.hpp"
#include "templates/cpu/partial.hpp"

namespace adamas_cpu {

/// Adds chunk c's values, times `weight`, to `sum`.
ADAMAS_INLINE void add_chunk(const float* partial, float weight, float* sum) {
  ADAMAS_ROLLED
  for (int e = 0; e < kValueDim; e += 8) {
    store(sum + e, load<F32x8>(sum + e) + load<F32x8>(partial + e) * weight);
  }
}

/// What the counters learn of one query head of a row.
ADAMAS_FUNCTION void count_head(const Args& args, const Row& row, unsigned head) {
  count_row(args, row, 1, head);
  if (row.visible() <= 0) return;
  if (args.all_tokens != 0) {
    using adamas_abi::Counters;
    count(args, args.all_tokens == 1 ? &Counters::dense_requested : &Counters::dense_background, 1);
  } else if (attends_all(args, row)) {
    count(args, &adamas_abi::Counters::dense_short, 1);
  }
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_merge(const adamas_abi::Args* args, unsigned, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  count_head(*args, row, y);
  const i64 chunks = chunks_of(*args, row, y);

  float max = kNoLogit;
  ADAMAS_ROLLED
  for (i64 c = 0; c < chunks; ++c)
    max = larger(max, partial_of(*args, row.number, y, c)[kValueDim]);

  float values[kValueDim];
  ADAMAS_ROLLED
  for (int e = 0; e < kValueDim; e += 8)
    store(values + e, F32x8(0.0f));
  float sum = 0;
  ADAMAS_ROLLED
  for (i64 c = 0; c < chunks; ++c) {
    const float* const partial = partial_of(*args, row.number, y, c);
    const PartialState state = load<PartialState>(partial + kValueDim);
    const float weight = exp_of(state.max - max);
    add_chunk(partial, weight, values);
    sum += state.sum * weight;
  }

  // The sink logit joins the maximum, so that its exponential cannot overflow, and then the denominator
  // alone.
  float denominator = sum, factor = 1;
  if constexpr (kSinkLogits) {
    const float sink = args->sink_logits[y];
    const float shift = larger(max, sink);
    factor = exp_of(max - shift);
    denominator = sum * factor + exp_of(sink - shift);
  }
  const float normalise = sum == 0.0f ? 0.0f : factor / denominator;
  Out::Raw* const out =
      static_cast<Out::Raw*>(args->out) + row.number * args->out_row_stride + y * args->out_head_stride;
  ADAMAS_ROLLED
  for (int e = 0; e < kValueDim; e += 8)
    store_floats<Out, 8>(out + e, load<F32x8>(values + e) * normalise);

  if (kLse && args->lse != nullptr) {
    args->lse[row.number * args->kv_heads * kGroup + y] = sum == 0.0f ? -__builtin_inff() : max + log_of(sum);
  }
}
