// The CPU stages against the oracle, each called directly: shapes and forms one by one, then random ones.
#include "tests/dispatch/cpu_stages.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

using adamas::oracle::Random;
using adamas::oracle::RowKind;
using adamas::tests::check_stages;
using adamas::tests::StageCase;

TEST_CASE("CPU stages: the default shapes") {
  check_stages({.spec = "head_dim=128", .lengths = {300, 0, 1, 127, 128, 129}, .kv_heads = 2});
  check_stages({.spec = "head_dim=64 group=3 budget=64", .lengths = {5000, 63, 64, 65}, .kv_heads = 3});
}

TEST_CASE("CPU stages: every bucket count with both estimators and all query widths") {
  for (const int buckets : {2, 4, 8, 16}) {
    check_stages({.spec = fmt::format("head_dim=80 group=2 budget=32 buckets={} estimator=manhattan", buckets),
                  .lengths = {200, 77},
                  .seed = 2});
    for (int bits = 3; bits <= 8; ++bits) {
      check_stages({.spec = fmt::format("head_dim=64 group=2 budget=32 buckets={} query_bits={}", buckets, bits),
                    .lengths = {150},
                    .kind = RowKind::kInteger,
                    .seed = 3});
    }
  }
  check_stages({.spec = "head_dim=512 buckets=16 query_bits=8 budget=16", .lengths = {100}, .kind = RowKind::kInteger});
  check_stages({.spec = "head_dim=512 buckets=16 estimator=manhattan budget=16", .lengths = {100}});
}

TEST_CASE("CPU stages: head dimensions and Hadamard sizes") {
  for (const char* dims : {"head_dim=16", "head_dim=80", "head_dim=96", "head_dim=112", "head_dim=192", "head_dim=256",
                           "head_dim=128 hadamard=32", "head_dim=48 hadamard=12", "head_dim=240 hadamard=20",
                           "head_dim=64 hadamard=1", "head_dim=64 hadamard=2", "head_dim=192 value_dim=128",
                           "head_dim=64 value_dim=176"}) {
    check_stages({.spec = fmt::format("{} group=2 budget=24", dims), .lengths = {130, 40}, .kind = RowKind::kInteger});
  }
}

TEST_CASE("CPU stages: group sizes and scopes") {
  for (const int group : {3, 5, 7, 8, 12, 32}) {
    for (const char* scope : {"query_head", "kv_head"}) {
      check_stages({.spec = fmt::format("head_dim=32 group={} scope={} budget=20", group, scope),
                    .lengths = {90, 20},
                    .kv_heads = 2,
                    .dense_below = 20});
    }
  }
  check_stages({.spec = "head_dim=64 group=6 scope=kv_head buckets=16 query_bits=8 budget=20", .lengths = {200}});
  check_stages({.spec = "head_dim=64 group=6 scope=kv_head estimator=manhattan budget=20", .lengths = {200}});
}

TEST_CASE("CPU stages: pages, rows and packed arrays, with starts") {
  for (const int page : {1, 16, 17, 32, 48, 64, 256}) {
    for (const bool head_major : {false, true}) {
      check_stages({.spec = fmt::format("head_dim=32 page_size={} group=2 budget=16", page),
                    .lengths = {200, 3, 65},
                    .kv_heads = 2,
                    .head_major = head_major,
                    .starts = head_major,
                    .bulk = head_major});
    }
  }
  for (const bool packed : {false, true}) {
    check_stages({.spec = "head_dim=32 cache_form=contiguous budget=16",
                  .lengths = {200, 3, 65, 128},
                  .kv_heads = 2,
                  .packed = packed,
                  .starts = true,
                  .bulk = packed});
  }
  check_stages({.spec = "head_dim=96 page_size=1 buckets=8 budget=16", .lengths = {150}});
  check_stages({.spec = "head_dim=16 page_size=1 buckets=2 budget=16", .lengths = {150}});
}

TEST_CASE("CPU stages: query rows, windows, forced tokens, row budgets") {
  check_stages({.spec = "head_dim=32 query_rows=4 budget=16 recent=4 sink=3 group=2",
                .lengths = {100, 2, 4, 15, 16, 17, 20},
                .row_budgets = true});
  check_stages({.spec = "head_dim=32 query_rows=3 budget=16 recent=4 sink=3 window=on",
                .lengths = {100, 2, 4, 300, 30},
                .starts = true,
                .window = 29});
  check_stages({.spec = "head_dim=32 window=on budget=16", .lengths = {100, 2}, .window = 1});
  check_stages({.spec = "head_dim=32 budget=16 recent=8 sink=8", .lengths = {100, 17, 16, 9}});
}

TEST_CASE("CPU stages: ties, integers, zeros, NaN and infinity") {
  for (const RowKind kind : {RowKind::kAllEqual, RowKind::kInteger, RowKind::kZero, RowKind::kSpecial}) {
    check_stages({.spec = "head_dim=64 group=2 budget=32 sink=2 recent=3",
                  .lengths = {4000, 31, 32, 33},
                  .kind = kind,
                  .dense_below = 32});
    check_stages({.spec = "head_dim=64 group=2 budget=32 estimator=manhattan", .lengths = {3000}, .kind = kind});
  }
}

TEST_CASE("CPU stages: number formats, soft cap, sink logits") {
  for (const char* type : {"f16", "bf16", "f32"}) {
    check_stages({.spec = fmt::format("head_dim=80 group=2 kv_type={0} q_type={0} out_type={0} budget=48 soft_cap=on "
                                      "sink_logits=on",
                                      type),
                  .lengths = {700, 12},
                  .soft_cap = 3.0F});
  }
  check_stages({.spec = "head_dim=64 kv_type=bf16 q_type=f32 out_type=f16", .lengths = {300}});
  check_stages({.spec = "head_dim=64 kv_type=f16 q_type=bf16 out_type=f32", .lengths = {300}, .kind = RowKind::kSpecial});
}

TEST_CASE("CPU stages: other x86-64 levels") {
#if defined(__x86_64__)
  for (const char* spec : {"head_dim=64 group=5 budget=32", "head_dim=64 group=2 budget=32 buckets=8 estimator=manhattan",
                           "head_dim=96 kv_type=bf16 budget=32 page_size=1"}) {
    for (const RowKind kind : {RowKind::kNormal, RowKind::kInteger, RowKind::kSpecial}) {
      check_stages({.spec = spec, .lengths = {300, 31}, .kind = kind, .target = "x86-64-v2"});
    }
  }
#endif
}

TEST_CASE("CPU stages: random shapes") {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    Random random(seed);
    const auto pick = [&](auto... values) {
      const int options[] = {values...};
      return options[random.integer(0, static_cast<std::int64_t>(std::size(options)) - 1)];
    };
    const bool contiguous = random.integer(0, 3) == 0;
    const int budget = pick(8, 50, 128, 300);
    const bool dot = random.integer(0, 2) > 0;
    const int group = pick(1, 2, 3, 4, 5, 8);
    const int rows = pick(1, 1, 2, 3);
    const bool window = random.integer(0, 3) == 0;
    StageCase stage_case;
    stage_case.spec = fmt::format(
        "head_dim={} value_dim={} buckets={} estimator={} query_bits={} budget={} sink={} recent={} group={} scope={} "
        "query_rows={} cache_form={} window={} {}",
        pick(64, 80, 96, 112, 128, 192), pick(64, 80, 128), pick(2, 4, 8, 16), dot ? "dot" : "manhattan",
        dot ? pick(3, 4, 5, 8) : 4, budget, pick(0, 2, 4), pick(1, 2, 4), group,
        random.integer(0, 1) ? "kv_head" : "query_head", rows, contiguous ? "contiguous" : "block_table",
        window ? "on" : "off", contiguous ? "" : fmt::format("page_size={}", pick(1, 16, 32, 48, 64, 100)));
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
