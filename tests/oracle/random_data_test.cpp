// Test data, against facts that do not come from its code. The whole is checked in sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

using namespace adamas::oracle;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST_SUITE("random data") {
  TEST_CASE("the same seed gives the same rows, and each kind is what it says") {
    Random a(42), b(42);
    CHECK(random_rows(a, RowKind::kNormal, 3, 8, Format::kF16) ==
          random_rows(b, RowKind::kNormal, 3, 8, Format::kF16));
    CHECK(Random(0).next() == 0xe220a8397b1dcdafu);  // the published first output of SplitMix64
    double sum = 0, squares = 0;
    for (const float x : random_rows(a, RowKind::kNormal, 200, 100, Format::kBF16)) {
      REQUIRE(round_to(Format::kBF16, x) == x);
      sum += x;
      squares += static_cast<double>(x) * x;
    }
    CHECK(sum / 20000 == doctest::Approx(0).epsilon(0.05));
    CHECK(squares / 20000 == doctest::Approx(1).epsilon(0.05));
    const auto equal = random_rows(a, RowKind::kAllEqual, 5, 4, Format::kF16);
    for (size_t i = 4; i < equal.size(); ++i)
      CHECK(equal[i] == equal[i - 4]);
    const auto special = random_rows(a, RowKind::kSpecial, 100, 8, Format::kF16);
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return std::isnan(x); }));
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return x == kInf; }));
    CHECK(std::any_of(special.begin(), special.end(), [](float x) { return x == -kInf; }));
  }

  TEST_CASE("integer problems hit thresholds, halves and ties") {
    for (const Estimator estimator : {Estimator::kDot, Estimator::kManhattan}) {
      const Config config{
          .head_dim = 96, .value_dim = 16, .hadamard = 96, .estimator = estimator, .budget = 16};
      const Call call;
      Random random(2);
      const Problem p = random_problem(random, config, call, 200, RowKind::kInteger);
      int on_threshold = 0;
      for (int64_t t = 0; t < 200; ++t) {
        for (const float y : hadamard(p.key_rows(config, call).at(t, 0), 96)) {
          on_threshold += static_cast<int>(std::count(p.thresholds.key.begin(), p.thresholds.key.end(), y));
        }
      }
      CHECK(on_threshold > 100);
      const auto codes = encode_keys(config, p.key_rows(config, call), p.thresholds.key);
      const auto integers = encode_queries(config, p.query_rows(config, call), p.thresholds.query);
      auto all = scores(config, call, Rows<int32_t>(integers, 1, 96), Rows<uint8_t>(codes, 1, 96));
      std::sort(all.begin(), all.end());
      CHECK(std::unique(all.begin(), all.end()) - all.begin() < 150);  // of 200: many ties
    }
  }
}
