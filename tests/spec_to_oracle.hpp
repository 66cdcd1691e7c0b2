// The oracle's view of a Spec: the one place where tests translate between the two.
#pragma once

#include "codegen/spec.hpp"
#include "tests/oracle/config.hpp"

namespace adamas::tests {

inline oracle::Format format_of(codegen::ElementType type) {
  switch (type) {
    case codegen::ElementType::f16:
      return oracle::Format::kF16;
    case codegen::ElementType::bf16:
      return oracle::Format::kBF16;
    case codegen::ElementType::f8e4m3fn:
      return oracle::Format::kF8E4M3;
    case codegen::ElementType::q8_0:
      return oracle::Format::kQ8_0;
    default:
      return oracle::Format::kF32;
  }
}

inline oracle::Config config_of(const codegen::Spec& spec) {
  oracle::Config config;
  config.head_dim = spec.head_dim;
  config.value_dim = spec.value_dim;
  config.hadamard = spec.hadamard;
  config.buckets = spec.buckets;
  config.estimator =
      spec.estimator == codegen::Estimator::dot ? oracle::Estimator::kDot : oracle::Estimator::kManhattan;
  config.query_bits = spec.query_bits;
  config.budget = spec.budget;
  config.sink = spec.sink;
  config.recent = spec.recent;
  config.group = spec.group;
  config.scope = spec.scope == codegen::Scope::kv_head ? oracle::Scope::kKvHead : oracle::Scope::kQueryHead;
  config.query_rows = spec.query_rows;
  config.kv_type = format_of(spec.kv_type);
  config.q_type = format_of(spec.q_type);
  config.out_type = format_of(spec.out_type);
  config.lse = spec.lse;
  config.soft_cap = spec.soft_cap;
  config.window = spec.window;
  config.sink_logits = spec.sink_logits;
  return config;
}

}  // namespace adamas::tests
