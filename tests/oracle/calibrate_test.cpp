// The oracle's thresholds, against facts that do not come from its code. The whole is checked in
// sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace adamas::oracle;

TEST_SUITE("calibrate") {
  TEST_CASE("points are ascending, symmetric and B-1 many") {
    for (const int buckets : {2, 4, 8, 16}) {
      const std::vector<double> points = lloyd_max_points(buckets);
      REQUIRE(points.size() == static_cast<size_t>(buckets - 1));
      for (size_t i = 0; i < points.size(); ++i)
        CHECK(points[i] == -points[points.size() - 1 - i]);
      CHECK(std::is_sorted(points.begin(), points.end()));
    }
  }

  TEST_CASE("thresholds are per KV head and follow its keys and its group's queries") {
    const Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .group = 2};
    // A rotation keeps the norm: constant rows of 2 have an RMS of 2.
    std::vector<float> keys(3 * 2 * 16), queries(1 * 4 * 16);
    for (size_t i = 0; i < keys.size(); ++i)
      keys[i] = i / 16 % 2 == 0 ? 2.0f : 4.0f;
    for (size_t i = 0; i < queries.size(); ++i)
      queries[i] = i / 16 < 2 ? 1.0f : (i / 16 == 2 ? 1.0f : 7.0f);
    const Thresholds t = calibrate(config, Rows<float>(keys, 2, 16), Rows<float>(queries, 4, 16));
    const std::vector<float> want_keys = {-0.9816f * 2, 0, 0.9816f * 2, -0.9816f * 4, 0, 0.9816f * 4};
    const std::vector<float> want_queries = {-0.3f, 0, 0.3f, -0.3f * 5, 0, 0.3f * 5};
    REQUIRE(t.key.size() == 6);
    REQUIRE(t.query.size() == 6);
    for (size_t i = 0; i < 6; ++i) {
      CHECK(t.key[i] == doctest::Approx(want_keys[i]).epsilon(1e-6));
      CHECK(t.query[i] == doctest::Approx(want_queries[i]).epsilon(1e-6));
    }
  }
}
