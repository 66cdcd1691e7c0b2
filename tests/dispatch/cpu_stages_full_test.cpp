// The CPU stages against the oracle over the breadth of Specs: too many compiles for every commit.
#include <doctest/doctest.h>

#include "codegen/format.hpp"
#include "tests/dispatch/cpu_stages.hpp"

using adamas::oracle::Random;
using adamas::oracle::RowKind;
using adamas::tests::check_stages;
using adamas::tests::StageCase;

TEST_CASE("CPU stages, full: every bucket count with both estimators and all query widths") {
  for (const int buckets : {2, 4, 8, 16}) {
    check_stages({.spec = fmt::format("head_dim=512 budget=16 buckets={} estimator=manhattan", buckets),
                  .lengths = {100},
                  .kind = RowKind::kInteger});
    for (int bits = 3; bits <= 8; ++bits) {
      for (const int dim : {64, 512}) {
        check_stages(
            {.spec = fmt::format("head_dim={} budget=32 buckets={} query_bits={}", dim, buckets, bits),
             .lengths = {150},
             .kind = RowKind::kInteger});
      }
    }
  }
}

TEST_CASE("CPU stages, full: head dimensions and Hadamard sizes") {
  for (int dim = 16; dim <= 512; dim += 16) {
    check_stages(
        {.spec = fmt::format("head_dim={} budget=24", dim), .lengths = {130, 40}, .kind = RowKind::kInteger});
  }
  for (const char* dims : {"head_dim=48 hadamard=12", "head_dim=48 hadamard=24", "head_dim=112 hadamard=28",
                           "head_dim=64 hadamard=2", "head_dim=256 hadamard=8"}) {
    check_stages(
        {.spec = fmt::format("{} budget=24", dims), .lengths = {130, 40}, .kind = RowKind::kInteger});
  }
}

TEST_CASE("CPU stages, full: group sizes") {
  for (int group = 1; group <= 32; ++group) {
    check_stages({.spec = fmt::format("head_dim=32 group={} scope={} budget=20", group,
                                      group % 2 ? "kv_head" : "query_head"),
                  .lengths = {90, 20},
                  .dense_below = 20});
  }
}

TEST_CASE("CPU stages, full: page sizes") {
  for (const int page : {2, 8, 16, 32, 64, 96, 100, 128, 1024}) {
    for (const int buckets : {2, 8}) {
      check_stages({.spec = fmt::format("head_dim=48 page_size={} buckets={} budget=16", page, buckets),
                    .lengths = {300, 3, 65},
                    .kv_heads = 2,
                    .starts = true});
    }
  }
}

TEST_CASE("CPU stages, full: x86-64-v2") {
#if defined(__x86_64__)
  for (const char* spec :
       {"head_dim=128 group=4", "head_dim=64 group=2 budget=32 buckets=8 estimator=manhattan",
        "head_dim=96 kv_type=bf16 budget=32 page_size=1",
        "head_dim=80 kv_type=f32 buckets=16 query_bits=8 soft_cap=on"}) {
    check_stages({.spec = spec, .lengths = {300, 31}, .soft_cap = 2.0F, .target = "x86-64-v2"});
  }
#endif
}

TEST_CASE("CPU stages, full: random shapes") {
  for (std::uint64_t seed = 1; seed <= 80; ++seed) {
    Random random(seed);
    const auto pick = [&](auto... values) {
      const int options[] = {values...};
      return options[random.integer(0, static_cast<std::int64_t>(std::size(options)) - 1)];
    };
    const bool contiguous = random.integer(0, 3) == 0;
    const int budget = pick(8, 50, 128, 300);
    const bool dot = random.integer(0, 2) > 0;
    const bool window = random.integer(0, 3) == 0;
    StageCase stage_case;
    stage_case.spec = fmt::format(
        "head_dim={} value_dim={} buckets={} estimator={} query_bits={} budget={} sink={} recent={} group={} "
        "scope={} "
        "query_rows={} cache_form={} window={} {}",
        pick(64, 80, 96, 112, 128, 192), pick(64, 80, 128), pick(2, 4, 8, 16), dot ? "dot" : "manhattan",
        dot ? pick(3, 4, 5, 8) : 4, budget, pick(0, 2, 4), pick(1, 2, 4), pick(1, 2, 3, 4, 5, 8),
        random.integer(0, 1) ? "kv_head" : "query_head", pick(1, 1, 2, 3),
        contiguous ? "contiguous" : "block_table", window ? "on" : "off",
        contiguous ? "" : fmt::format("page_size={}", pick(1, 16, 32, 48, 64, 100)));
    for (int b = pick(1, 2, 4); b > 0; --b) {
      stage_case.lengths.push_back(pick(0, 1, budget - 1, budget, budget + 1, 333, 2500));
    }
    stage_case.kv_heads = pick(1, 2);
    stage_case.kind = static_cast<RowKind>(random.integer(0, 4));
    stage_case.head_major = random.integer(0, 1);
    stage_case.packed = contiguous && random.integer(0, 1);
    stage_case.starts = random.integer(0, 1);
    stage_case.bulk = random.integer(0, 1);
    stage_case.row_budgets = random.integer(0, 2) == 0;
    stage_case.dense_below = pick(0, budget);
    stage_case.window = window ? pick(1, 60, 1000) : 0;
    stage_case.seed = seed;
    check_stages(stage_case);
  }
}
