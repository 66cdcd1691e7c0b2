// Every operation against the oracle on the CPU, with unreadable pages around every buffer.
#include <doctest/doctest.h>

#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

using oracle::RowKind;

TEST_CASE("cpu: fixed scenarios") {
  const Context context("cpu");
  for (const Scenario& scenario : fixed_scenarios())
    check_scenario(context, scenario);
}

TEST_CASE("cpu: f32 keys and values") {
  const Context context("cpu");
  check_scenario(context, {.spec = "head_dim=64 kv_type=f32 budget=16 group=4", .lengths = {90, 20, 0}});
  check_scenario(context,
                 {.spec = "head_dim=80 kv_type=f32 budget=16 estimator=manhattan cache_form=contiguous",
                  .lengths = {90, 20}});
}

TEST_CASE("cpu: blocks of 8-bit integers") {
  const Context context("cpu");
  for (const char* spec :
       {"group=4 budget=16", "head_dim=96 value_dim=32 group=3 budget=16 estimator=manhattan page_size=5",
        "head_dim=64 budget=24 group=6 scope=kv_head cache_form=contiguous q_type=f32 out_type=f32",
        "head_dim=160 budget=16 query_rows=2 cache_form=pointers page_size=32 tables=split",
        "head_dim=512 value_dim=64 budget=16 group=2 buckets=16 cache_form=slots q_type=f16"}) {
    for (const RowKind kind : {RowKind::kNormal, RowKind::kSpecial, RowKind::kZero}) {
      check_scenario(context,
                     {.spec = std::string("kv_type=q8_0 ") + spec,
                      .lengths = {150, 0, 33},
                      .kind = kind,
                      .layout = kind == RowKind::kNormal ? HostLayout::interleaved : HostLayout::head_major,
                      .bulk = kind == RowKind::kNormal,
                      .dense_below = kind == RowKind::kZero ? 40 : 0});
    }
  }
}

TEST_CASE("cpu: dense rows whose work items take several K/V heads") {
  const Context context("cpu");
  // Small chunks, so that there are enough of them; heads that make no whole number of blocks.
  const Scenario scenario{.spec = "head_dim=64 budget=16 group=3",
                          .lengths = {400, 90, 33},
                          .kv_heads = 11,
                          .tuning = "dense_chunk=32"};
  for (const HostLayout layout : {HostLayout::token_major, HostLayout::head_major, HostLayout::interleaved}) {
    Scenario other = scenario;
    other.layout = layout;
    check_scenario(context, other);
  }
  Scenario uneven = scenario;
  uneven.spec =
      "head_dim=96 value_dim=48 kv_type=f32 q_type=f32 out_type=f32 group=5 budget=16 query_rows=2 "
      "page_size=16";
  uneven.dense_below = 60;
  check_scenario(context, uneven);
}

TEST_CASE("cpu: random scenarios") {
  const Context context("cpu");
  for (std::uint64_t seed = 1; seed <= 24; ++seed)
    check_scenario(context, random_scenario(seed));
}

}  // namespace adamas::tests
