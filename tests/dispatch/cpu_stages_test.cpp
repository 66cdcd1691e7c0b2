// The CPU stages against the oracle, each called directly: one case for each kind of shape and form. The
// breadth is in cpu_stages_full_test.cpp.
#include "tests/dispatch/cpu_stages.hpp"

#include <doctest/doctest.h>

#include "codegen/format.hpp"
#include "runtime/compile/cpu_target.hpp"

using adamas::oracle::RowKind;
using adamas::tests::check_stages;
using adamas::tests::check_wild_data;

TEST_CASE("CPU stages: the default shapes") {
  check_stages({.spec = "head_dim=128", .lengths = {300, 0, 1, 127, 128, 129}, .kv_heads = 2});
  check_stages({.spec = "head_dim=64 group=3 budget=64", .lengths = {5000, 63, 64, 65}, .kv_heads = 3});
}

TEST_CASE("CPU stages: bucket counts, estimators, query widths") {
  for (const int buckets : {2, 4, 8, 16}) {
    check_stages(
        {.spec = fmt::format("head_dim=80 group=2 budget=32 buckets={} estimator=manhattan", buckets),
         .lengths = {200, 77}});
  }
  // From entries that fit a byte many times to entries that need two planes.
  for (const char* shape : {"buckets=2 query_bits=8", "buckets=4 query_bits=6", "buckets=8 query_bits=4",
                            "buckets=8 query_bits=8", "buckets=16 query_bits=3"}) {
    check_stages({.spec = fmt::format("head_dim=64 group=2 budget=32 {}", shape),
                  .lengths = {150},
                  .kind = RowKind::kInteger});
  }
  check_stages({.spec = "head_dim=512 buckets=16 query_bits=8 budget=16",
                .lengths = {100},
                .kind = RowKind::kInteger});
}

TEST_CASE("CPU stages: queries of integers, where a quotient is often a half") {
  // Dividing by a reciprocal, or rounding halves another way, changes some integers of 512 such queries.
  for (const int bits : {3, 5}) {
    check_stages({.spec = fmt::format("head_dim=64 group=32 budget=8 query_bits={}", bits),
                  .lengths = {9},
                  .kv_heads = 16,
                  .kind = RowKind::kInteger});
  }
}

TEST_CASE("CPU stages: head dimensions and Hadamard sizes") {
  for (const char* dims :
       {"head_dim=16", "head_dim=96", "head_dim=112 value_dim=176", "head_dim=128 hadamard=32",
        "head_dim=240 hadamard=20", "head_dim=64 hadamard=1"}) {
    check_stages(
        {.spec = fmt::format("{} group=2 budget=24", dims), .lengths = {130, 40}, .kind = RowKind::kInteger});
  }
}

TEST_CASE("CPU stages: group sizes and scopes") {
  for (const char* group :
       {"group=5", "group=12 scope=kv_head", "group=32 scope=kv_head estimator=manhattan"}) {
    check_stages({.spec = fmt::format("head_dim=32 budget=20 {}", group),
                  .lengths = {90, 20},
                  .kv_heads = 2,
                  .dense_below = 20});
  }
}

TEST_CASE("CPU stages: pages, rows and packed arrays, with starts") {
  for (const int page : {1, 17, 48, 256}) {
    for (const bool other : {false, true}) {
      check_stages({.spec = fmt::format("head_dim=32 page_size={} group=2 budget=16", page),
                    .lengths = {200, 3, 65},
                    .kv_heads = 2,
                    .head_major = other,
                    .starts = other,
                    .bulk = other});
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
}

TEST_CASE("CPU stages: query rows, windows, forced tokens, row budgets") {
  check_stages({.spec = "head_dim=32 query_rows=4 budget=16 recent=4 sink=3 group=2",
                .lengths = {100, 2, 4, 15, 16, 17, 20},
                .row_budgets = true});
  check_stages({.spec = "head_dim=32 query_rows=3 budget=16 recent=4 sink=3 window=on",
                .lengths = {100, 2, 4, 300, 30},
                .starts = true,
                .window = 29});
}

TEST_CASE("CPU stages: ties, integers, zeros, NaN and infinity") {
  for (const RowKind kind : {RowKind::kAllEqual, RowKind::kInteger, RowKind::kZero, RowKind::kSpecial}) {
    check_stages({.spec = "head_dim=64 group=2 budget=32 sink=2 recent=3",
                  .lengths = {4000, 31, 32, 33},
                  .kind = kind,
                  .dense_below = 32});
    check_stages(
        {.spec = "head_dim=64 group=2 budget=32 estimator=manhattan", .lengths = {3000}, .kind = kind});
  }
}

TEST_CASE("CPU stages: the largest budget") {
  for (const RowKind kind : {RowKind::kNormal, RowKind::kInteger, RowKind::kAllEqual}) {
    for (const char* estimator : {"dot", "manhattan"}) {
      check_stages({.spec = fmt::format("head_dim=64 group=2 budget=4096 estimator={}", estimator),
                    .lengths = {9000, 4095, 4097},
                    .kind = kind});
    }
  }
}

TEST_CASE("CPU stages: distances far beyond those that are selected") {
  // What the scan keeps is nearer than 255, where its byte sums may stop; a sum that came round would be
  // near.
  for (const char* spec : {"head_dim=128 group=2 budget=128", "head_dim=128 group=3 budget=128 scope=kv_head",
                           "head_dim=64 group=2 budget=128 buckets=8", "head_dim=64 budget=96 buckets=16"}) {
    check_stages(
        {.spec = fmt::format("{} estimator=manhattan", spec), .lengths = {4000}, .kind = RowKind::kOpposed});
  }
}

TEST_CASE("CPU stages: number formats, soft cap, sink logits") {
  for (const char* type : {"f16", "bf16", "f32"}) {
    check_stages(
        {.spec = fmt::format("head_dim=80 group=2 kv_type={0} q_type={0} out_type={0} budget=48 soft_cap=on "
                             "sink_logits=on",
                             type),
         .lengths = {700, 12},
         .soft_cap = 3.0F});
  }
  check_stages({.spec = "head_dim=64 kv_type=f16 q_type=bf16 out_type=f32",
                .lengths = {300},
                .kind = RowKind::kSpecial});
}

TEST_CASE("CPU stages: wild lengths, starts, tables, slots and positions") {
  for (const char* form : {"page_size=16", "page_size=17", "cache_form=contiguous"}) {
    check_wild_data({.spec = fmt::format("head_dim=32 group=3 budget=16 {}", form),
                     .lengths = {100, 150, 20, 70, 90},
                     .kv_heads = 2,
                     .dense_below = 30});
  }
}

TEST_CASE("CPU stages: data that is aligned to its elements and no further") {
  for (const char* type : {"f16", "bf16", "f32"}) {
    for (const bool head_major : {false, true}) {
      check_stages(
          {.spec = fmt::format(
               "head_dim=64 value_dim=48 group=3 budget=32 kv_type={0} q_type={0} out_type={0}", type),
           .lengths = {300, 5},
           .kv_heads = 3,
           .head_major = head_major,
           .element_aligned = true,
           .dense_below = 20});
    }
  }
}

// The levels this machine has besides its own features: on one with AVX-512 also the kernels of those
// without, down to a machine without AVX2, FMA and float16 conversion. Each agrees with the oracle bit by bit
// in codes, scores and selections, so they agree with each other.
TEST_CASE("CPU stages: every target that runs here") {
  for (const std::string& target : adamas::runtime::runnable_cpu_targets()) {
    CAPTURE(target);
    for (const RowKind kind : {RowKind::kNormal, RowKind::kInteger, RowKind::kSpecial, RowKind::kOpposed}) {
      for (const char* estimator : {"dot", "manhattan"}) {
        check_stages({.spec = fmt::format("head_dim=64 group=5 budget=32 estimator={}", estimator),
                      .lengths = {2500, 31},
                      .kind = kind,
                      .target = target});
      }
    }
    check_stages({.spec = "head_dim=128 budget=48 kv_type=bf16 page_size=16",
                  .lengths = {900},
                  .kv_heads = 2,
                  .element_aligned = true,
                  .dense_below = 20,
                  .target = target});
  }
}
