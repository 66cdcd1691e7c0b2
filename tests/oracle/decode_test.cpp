// The oracle's rows, scopes and budgets, against facts that do not come from its code. The whole is checked
// in sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

using namespace adamas::oracle;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_SUITE("decode") {
  TEST_CASE("rows decide by their own length; a budget that covers the row equals dense") {
    Config config{.head_dim = 32, .value_dim = 16, .hadamard = 32, .budget = 6, .group = 2, .query_rows = 4};
    Call call{.kv_heads = 2, .scale = 0.2f};
    Random random(5);
    for (const int64_t tokens : {0, 1, 3, 5, 6, 7, 8, 9, 30}) {
      const Problem p = random_problem(random, config, call, tokens, RowKind::kInteger);
      const auto q = p.query_rows(config, call);
      const auto k = p.key_rows(config, call);
      const auto v = p.value_rows(config, call);
      const Output sparse = decode(config, call, q, k, v, p.thresholds);
      const Output full = dense(config, call, q, k, v);
      REQUIRE(sparse.out.size() == 4 * 4 * 16);
      REQUIRE(sparse.lse.size() == 4 * 4);
      for (int row = 0; row < 4; ++row) {
        const int64_t seen = visible(config, call, tokens, row).size();
        CHECK(sparse.is_dense[static_cast<size_t>(row)] == (seen <= 6 ? 1 : 0));
        for (size_t h = 0; h < 4; ++h) {
          const size_t at = static_cast<size_t>(row) * 4 + h;
          if (seen <= 6) {
            CHECK(sparse.lse[at] == full.lse[at]);
          } else {
            CHECK(sparse.lse[at] < full.lse[at]);
          }
        }
      }
      call.dense_below = 1000;
      CHECK(decode(config, call, q, k, v, p.thresholds).out == full.out);
      call.dense_below = 0;  // select what the row sees: the same tokens when they fit the budget
      const Output selected = decode(config, call, q, k, v, p.thresholds);
      CHECK(selected.out == sparse.out);
      call.dense_below = -1;
    }
  }

  TEST_CASE("a bad row leaves the others alone") {
    Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .budget = 4, .query_rows = 2};
    const Call call{.scale = 0.25f};
    Random random(6);
    Problem p = random_problem(random, config, call, 20, RowKind::kNormal);
    const auto run = [&] {
      return decode(config, call, p.query_rows(config, call), p.key_rows(config, call),
                    p.value_rows(config, call), p.thresholds);
    };
    const Output before = run();
    p.queries[0] = kNan;
    const Output after = run();
    CHECK(std::equal(before.out.begin() + 16, before.out.end(), after.out.begin() + 16));
    CHECK(std::isnan(after.out[0]));
  }

  TEST_CASE("query head scope and KV head scope pick the set of the right head") {
    Config config{.head_dim = 16, .value_dim = 16, .hadamard = 16, .budget = 2, .group = 2};
    const Call call{.kv_heads = 2};
    Random random(9);
    const Problem p = random_problem(random, config, call, 5, RowKind::kNormal);
    const auto q = p.query_rows(config, call);
    const auto k = p.key_rows(config, call);
    const auto v = p.value_rows(config, call);
    const auto selection = [](int32_t a, int32_t b) { return Selection{{a, b}, 2}; };
    const std::vector<Selection> four = {selection(0, 1), selection(1, 2), selection(2, 3), selection(3, 4)};
    const Output per_query = attend_all(config, call, q, k, v, four);
    config.scope = Scope::kKvHead;
    const Output per_kv = attend_all(config, call, q, k, v, {four[0], four[3]});
    for (int64_t h = 0; h < 4; ++h) {
      CHECK(per_query.lse[h] == attend(config, call, q.at(0, h), h, k, v, four[h].chosen()).lse);
      CHECK(per_kv.lse[h] == attend(config, call, q.at(0, h), h, k, v, four[h < 2 ? 0 : 3].chosen()).lse);
    }
  }
}
