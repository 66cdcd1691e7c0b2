// The oracle's codes, query integers and scores, against facts that do not come from its code. The whole is
// checked in sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

using namespace adamas::oracle;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_SUITE("codes") {
  TEST_CASE("thresholds are strict, NaN is below all, infinity above") {
    const std::vector<float> thresholds = {-1, 0, 1};
    const std::vector<float> y = {-1.5f, -1, -0.5f, 0, 0x1p-149f, 1, 1.5f, kNan, kInf, -kInf, -0.0f};
    CHECK(bucketize(y, thresholds) == std::vector<uint8_t>{0, 0, 1, 1, 2, 2, 3, 0, 3, 0, 1});
    CHECK(bucketize(y, std::vector<float>{kNan, kNan, kNan}) == std::vector<uint8_t>(11, 0));
  }

  TEST_CASE("query integers") {
    // s = 7 / 7 = 1: the ratios are the values, halves go to even.
    CHECK(quantize_query(std::vector<float>{7, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -7}, 4) ==
          std::vector<int32_t>{7, 0, 2, 2, 0, -2, -2, -7});
    CHECK(quantize_query(std::vector<float>{0, -0.0f}, 4) == std::vector<int32_t>{0, 0});
    for (const float bad : {kNan, kInf, -kInf}) {
      CHECK(quantize_query(std::vector<float>{1, bad, 2}, 4) == std::vector<int32_t>{0, 0, 0});
    }
    // M = 3 for 3 bits, 127 for 8.
    CHECK(quantize_query(std::vector<float>{1, -2, 3}, 3) == std::vector<int32_t>{1, -2, 3});
    CHECK(quantize_query(std::vector<float>{127, -64, 0.5f}, 8) == std::vector<int32_t>{127, -64, 0});
    // The smallest subnormal / 7 is 0 in float: the scale vanishes, and so do the integers.
    CHECK(quantize_query(std::vector<float>{0x1p-149f}, 4) == std::vector<int32_t>{0});
    // Subnormal scales round coarsely: 10 steps / 7 is 1 step, the ratio 10 is cut to M.
    CHECK(quantize_query(std::vector<float>{10 * 0x1p-149f, -10 * 0x1p-149f}, 4) ==
          std::vector<int32_t>{7, -7});
  }

  TEST_CASE("division is true division: a reciprocal would change integers") {
    // y / s against y * (1 / s) on integer-valued rows.
    int differing = 0;
    for (int largest = 1; largest <= 64; ++largest) {
      for (int value = 0; value <= largest; ++value) {
        const auto y = static_cast<float>(value);
        const float s = static_cast<float>(largest) / 7.0f;
        const int want = static_cast<int>(std::nearbyint(y / s));
        CHECK(quantize_query(std::vector<float>{static_cast<float>(largest), y}, 4)[1] == want);
        if (static_cast<int>(std::nearbyint(y * (1.0f / s))) != want) ++differing;
      }
    }
    CHECK(differing > 0);
  }

  TEST_CASE("scores by hand") {
    Config config;
    config.buckets = 4;
    const std::vector<uint8_t> key = {0, 1, 2, 3};
    CHECK(score(config, std::vector<int32_t>{7, -1, 2, -7}, key) == 7 * -3 + -1 * -1 + 2 * 1 + -7 * 3);
    config.estimator = Estimator::kManhattan;
    CHECK(score(config, std::vector<int32_t>{3, 1, 0, 2}, key) == 3 + 0 + 2 + 1);
  }

  TEST_CASE("a dot score is the inner product with the codes' midpoints, a KV head takes its group's best") {
    for (const Estimator estimator : {Estimator::kDot, Estimator::kManhattan}) {
      Config config{.head_dim = 32, .value_dim = 32, .hadamard = 32, .estimator = estimator, .group = 3};
      Call call{.kv_heads = 2};
      Random random(3);
      const Problem p = random_problem(random, config, call, 40, RowKind::kNormal);
      const auto codes = encode_keys(config, p.key_rows(config, call), p.thresholds.key);
      const auto integers = encode_queries(config, p.query_rows(config, call), p.thresholds.query);
      const Rows<uint8_t> code_rows(codes, 2, 32);
      const Rows<int32_t> integer_rows(integers, 6, 32);
      const auto per_query = scores(config, call, integer_rows, code_rows);
      REQUIRE(per_query.size() == 6 * 40);
      config.scope = Scope::kKvHead;
      const auto per_kv = scores(config, call, integer_rows, code_rows);
      REQUIRE(per_kv.size() == 2 * 40);
      for (size_t h = 0; h < 2; ++h) {
        for (size_t t = 0; t < 40; ++t) {
          const std::array<int64_t, 3> group = {per_query[(3 * h) * 40 + t], per_query[(3 * h + 1) * 40 + t],
                                                per_query[(3 * h + 2) * 40 + t]};
          const int64_t best = estimator == Estimator::kDot ? *std::max_element(group.begin(), group.end())
                                                            : *std::min_element(group.begin(), group.end());
          CHECK(per_kv[h * 40 + t] == best);
        }
      }
    }
  }
}
