// Random Specs for properties: any that parse accepts, drawn from the contract's table and not from the
// parser.
#pragma once

#include <rapidcheck.h>

#include <vector>

#include "codegen/spec.hpp"

namespace adamas::codegen {

/// Sizes of the transform, written down: 2^k * {1, 12, 20, 28} up to 512.
inline const std::vector<int> kHadamardSizes{1,  2,  4,  8,   12,  16,  20,  24,  28,  32,  40,  48,  56,
                                             64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512};

inline rc::Gen<Spec> any_spec() {
  return rc::gen::exec([] {
    const auto integer = [](int low, int high) { return *rc::gen::inRange(low, high + 1); };
    Spec spec;
    spec.kv_type = *rc::gen::element(ElementType::f16, ElementType::bf16, ElementType::f32,
                                     ElementType::f8e4m3fn, ElementType::q8_0);
    const int step = spec.kv_type == ElementType::q8_0 ? 32 : 16;  // blocks
    spec.head_dim = step * integer(1, 512 / step);
    spec.value_dim = step * integer(1, 512 / step);
    std::vector<int> sizes;
    for (const int m : kHadamardSizes) {
      if (spec.head_dim % m == 0) sizes.push_back(m);
    }
    spec.hadamard = *rc::gen::elementOf(sizes);
    spec.buckets = 1 << integer(1, 4);
    spec.estimator = *rc::gen::element(Estimator::dot, Estimator::manhattan);
    if (spec.estimator == Estimator::dot) spec.query_bits = integer(3, 8);
    spec.budget = integer(1, 4096);
    spec.recent = integer(1, spec.budget);
    spec.sink = integer(0, spec.budget - spec.recent);
    spec.group = integer(1, 32);
    spec.scope = *rc::gen::element(Scope::query_head, Scope::kv_head);
    spec.query_rows = integer(1, 8);
    spec.q_type = *rc::gen::element(ElementType::f16, ElementType::bf16, ElementType::f32);
    spec.out_type = *rc::gen::element(ElementType::f16, ElementType::bf16, ElementType::f32);
    spec.cache_form = *rc::gen::element(CacheForm::contiguous, CacheForm::block_table, CacheForm::csr,
                                        CacheForm::slots, CacheForm::pointers);
    const bool paged = spec.cache_form != CacheForm::contiguous && spec.cache_form != CacheForm::slots;
    if (paged) spec.page_size = integer(1, 1024);
    if (spec.cache_form != CacheForm::contiguous)
      spec.tables = *rc::gen::element(Tables::shared, Tables::split);
    spec.lse = *rc::gen::arbitrary<bool>();
    spec.soft_cap = *rc::gen::arbitrary<bool>();
    spec.window = *rc::gen::arbitrary<bool>();
    spec.sink_logits = *rc::gen::arbitrary<bool>();
    return spec;
  });
}

}  // namespace adamas::codegen
