// The oracle's selection, against facts that do not come from its code. The whole is checked in
// sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using namespace adamas::oracle;

namespace {

/// Scores 0, 0, ... except the given ones.
std::vector<int64_t> scores_with(int64_t tokens, std::initializer_list<std::pair<int, int>> set) {
  std::vector<int64_t> scores(static_cast<size_t>(tokens), 0);
  for (const auto& [position, score] : set)
    scores[static_cast<size_t>(position)] = score;
  return scores;
}

std::vector<int32_t> pick(const Config& config, Range seen, int budget, const std::vector<int64_t>& scores,
                          bool smaller_is_better = false) {
  const Selection s = select<int64_t>(config, seen, budget, scores, smaller_is_better);
  REQUIRE(s.positions.size() == static_cast<size_t>(config.budget));
  for (size_t i = static_cast<size_t>(s.count); i < s.positions.size(); ++i)
    REQUIRE(s.positions[i] == -1);
  return {s.chosen().begin(), s.chosen().end()};
}

using Positions = std::vector<int32_t>;

}  // namespace

TEST_SUITE("select") {
  TEST_CASE("the better score wins, among equals the later position") {
    Config config{.budget = 4};
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{1, 5}, {2, 3}})) == Positions{1, 2, 8, 9});
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{9, -99}})) == Positions{6, 7, 8, 9});  // 9 is forced
    CHECK(pick(config, {0, 10}, 4, scores_with(10, {{1, 5}, {2, -3}}), true) == Positions{2, 7, 8, 9});
    CHECK(pick(config, {0, 3}, 4, scores_with(3, {})) == Positions{0, 1, 2});
    CHECK(pick(config, {0, 0}, 4, {}).empty());
  }

  TEST_CASE("forced tokens count in the budget") {
    const Config config{.budget = 5, .sink = 2, .recent = 2};
    const auto scores = scores_with(20, {{0, 9}, {1, -9}, {18, 9}, {19, -9}, {5, 1}, {6, 1}});
    CHECK(pick(config, {0, 20}, 5, scores) == Positions{0, 1, 6, 18, 19});
    // A smaller budget of the row gives up what is earliest, whatever the scores of the forced.
    CHECK(pick(config, {0, 20}, 3, scores) == Positions{1, 18, 19});
    CHECK(pick(config, {0, 20}, 1, scores) == Positions{19});
    CHECK(pick(config, {0, 20}, 0, scores).empty());
  }

  TEST_CASE("sinks outside the window are not forced, nor is anything that is not seen") {
    const Config config{.budget = 3, .sink = 2, .recent = 1};
    CHECK(pick(config, {1, 20}, 3, scores_with(20, {{7, 9}})) == Positions{1, 7, 19});
    CHECK(pick(config, {8, 20}, 3, scores_with(20, {{7, 9}, {9, 1}})) == Positions{9, 18, 19});
  }

  TEST_CASE("rows, windows and budgets") {
    Config config{.query_rows = 3, .window = true};
    Call call;
    call.window = 4;
    const auto range = [&](int64_t tokens, int row) {
      const Range r = visible(config, call, tokens, row);
      return std::pair(r.begin, r.end);
    };
    CHECK(range(10, 0) == std::pair<int64_t, int64_t>(4, 8));
    CHECK(range(10, 2) == std::pair<int64_t, int64_t>(6, 10));
    CHECK(range(4, 0) == std::pair<int64_t, int64_t>(0, 2));
    CHECK(range(2, 0).second == 0);  // row 0 of 3 stands before the sequence
    CHECK(range(2, 1) == std::pair<int64_t, int64_t>(0, 1));
    CHECK(range(0, 2).second == 0);
    config.window = false;
    CHECK(range(10, 1) == std::pair<int64_t, int64_t>(0, 9));

    config.budget = 8;
    CHECK(row_budget(config, call, 2) == 8);
    call.row_budget = {3, 99, -1};
    CHECK(row_budget(config, call, 0) == 3);
    CHECK(row_budget(config, call, 1) == 8);
    CHECK(row_budget(config, call, 2) == 0);
  }
}
