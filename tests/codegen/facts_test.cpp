// Facts: widths and limits of codes, query integers, scores and order keys.
#include "codegen/facts.hpp"

#include <doctest/doctest.h>
#include <rapidcheck.h>

#include "tests/codegen/spec_gen.hpp"

using namespace adamas::codegen;

TEST_CASE("the values that the contract names") {
  const Facts defaults = facts_of(Spec::parse(""));
  CHECK(defaults.code_bits == 2);
  CHECK(defaults.query_max == 7);
  CHECK(defaults.score_limit == 2688);
  CHECK(defaults.key_limit == 5376);
  CHECK(defaults.key_forced == 5377);
  CHECK(defaults.key_bytes == 2);
  CHECK(defaults.selections_per_kv_head == 1);
  CHECK(defaults.hadamard.order == 1);
  CHECK(defaults.hadamard.log2 == 7);

  const Facts wide = facts_of(Spec::parse("head_dim=256 buckets=16 query_bits=8"));
  CHECK(wide.code_bits == 4);
  CHECK(wide.query_max == 127);
  CHECK(wide.score_limit == 487680);
  CHECK(wide.key_bytes == 4);

  const Facts distance = facts_of(Spec::parse("estimator=manhattan"));
  CHECK(distance.query_max == 3);
  CHECK(distance.score_limit == 384);
  CHECK(distance.key_limit == 384);
  CHECK(distance.key_forced == 385);
}

TEST_CASE("order keys take two bytes while the forced key fits") {
  // dot at d = 368, B = 16, 3 bits: 2 * 368 * 15 * 3 + 1 = 33121; 4 bits: 77281.
  CHECK(facts_of(Spec::parse("head_dim=368 buckets=16 query_bits=3")).key_forced == 33121);
  CHECK(facts_of(Spec::parse("head_dim=368 buckets=16 query_bits=3")).key_bytes == 2);
  CHECK(facts_of(Spec::parse("head_dim=368 buckets=16 query_bits=4")).key_forced == 77281);
  CHECK(facts_of(Spec::parse("head_dim=368 buckets=16 query_bits=4")).key_bytes == 4);
}

TEST_CASE("selections of a K/V head: one a query head, or one for all") {
  CHECK(facts_of(Spec::parse("group=5")).selections_per_kv_head == 5);
  CHECK(facts_of(Spec::parse("group=5 scope=kv_head")).selections_per_kv_head == 1);
}

TEST_CASE("property: the limits are the scores of the extreme codes") {
  CHECK(rc::check([] {
    const Spec spec = *any_spec();
    const Facts facts = facts_of(spec);
    RC_ASSERT((1 << facts.code_bits) == spec.buckets);
    // The best and the worst token, summed as the contract writes it.
    int best = 0, worst = 0;
    for (int i = 0; i < spec.head_dim; ++i) {
      const int top = spec.buckets - 1;
      if (spec.estimator == Estimator::dot) {
        best += facts.query_max * (2 * top - top);
        worst += facts.query_max * (2 * 0 - top);
      } else {
        worst += facts.query_max - 0;
      }
    }
    if (spec.estimator == Estimator::dot) {
      RC_ASSERT(best + facts.score_limit == facts.key_limit);
      RC_ASSERT(worst + facts.score_limit == 0);
    } else {
      RC_ASSERT(facts.score_limit - best == facts.key_limit);
      RC_ASSERT(facts.score_limit - worst == 0);
    }
    RC_ASSERT(facts.key_forced > facts.key_limit);
    RC_ASSERT((facts.key_bytes == 2) == (facts.key_forced <= 65535));
  }));
}
