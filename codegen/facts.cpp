// Facts of a Spec: the widths and limits that codes, query integers and scores have.
#include "codegen/facts.hpp"

#include <bit>

namespace adamas::codegen {

Facts facts_of(const Spec& spec) {
  const bool dot = spec.estimator == Estimator::dot;
  const int top_code = spec.buckets - 1;
  Facts facts{};
  facts.hadamard = hadamard_factors(spec.hadamard);
  facts.code_bits = std::countr_zero(static_cast<unsigned>(spec.buckets));
  facts.query_max = dot ? (1 << (spec.query_bits - 1)) - 1 : top_code;
  // dot: an element contributes query_max * |2 code - top_code|, manhattan: |query code - code|.
  facts.score_limit = spec.head_dim * top_code * (dot ? facts.query_max : 1);
  facts.key_limit = dot ? 2 * facts.score_limit : facts.score_limit;
  facts.key_forced = facts.key_limit + 1;
  facts.key_bytes = facts.key_forced < (1 << 16) ? 2 : 4;
  facts.page_tokens = spec.cache_form == CacheForm::contiguous ? 0
                      : spec.cache_form == CacheForm::slots    ? 1
                                                               : spec.page_size;
  facts.selections_per_kv_head = spec.scope == Scope::query_head ? spec.group : 1;
  return facts;
}

}  // namespace adamas::codegen
