// Default thresholds of one layer from samples, on the host (algorithm: Thresholds).
#pragma once

#include <cstdint>
#include <vector>

#include "codegen/spec.hpp"

namespace adamas::runtime {

struct Samples {
  const void* keys = nullptr;     ///< [key_count, kv_heads, head_dim] of kv_type
  const void* queries = nullptr;  ///< [query_count, kv_heads * group, head_dim] of q_type
  std::int64_t key_count = 0, query_count = 0;
  int kv_heads = 0;
};

struct Thresholds {
  std::vector<float> key;    ///< [kv_heads, buckets - 1]
  std::vector<float> query;  ///< likewise; empty without query samples
};

/// Lloyd-Max points of a unit Gaussian times the root mean square of the rotated samples of each K/V head.
/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) for empty or non-finite samples.
Thresholds calibrate(const codegen::Spec& spec, const Samples& samples);

}  // namespace adamas::runtime
