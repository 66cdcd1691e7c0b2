// The decode unit, run on the CPU in clusters of emulated blocks: against the oracle, and bit by bit against
// the stages, whose arithmetic it repeats.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_emulation/block.hpp"
#include "tests/cuda_emulation/checks.hpp"
#include "tests/cuda_emulation/problem.hpp"
#include "tests/cuda_emulation/specs.hpp"

namespace {

using namespace adamas;
using namespace cuda_emulation;
using oracle::RowKind;

constexpr std::array kClusters{1, 2, 3, 4, 8};

/// Output and LSE of a decode, to be compared bit by bit. (What a NaN is made of is the machine's choice.)
struct Answer {
  std::vector<double> values;

  explicit Answer(const Problem& problem) : values(problem.lse.begin(), problem.lse.end()) {
    for (int row = 0; row < problem.rows(); ++row) {
      for (int head = 0; head < problem.query_heads(); ++head) {
        std::ranges::copy(problem.out(row, head), std::back_inserter(values));
      }
    }
  }
  bool operator==(const Answer& other) const {
    return std::ranges::equal(values, other.values, [](double a, double b) {
      return (std::isnan(a) && std::isnan(b)) ||
             std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
    });
  }
};

/// Calls `check` on every Spec that has the decode unit.
template <class Check>
void for_each_spec(Check check) {
  for (int index = 0; index < static_cast<int>(std::size(kSpecs)); ++index) {
    if (!has_decode_unit(index)) continue;
    CAPTURE(std::string(kSpecs[index].spec));
    check(index);
  }
}

/// Runs a problem by its stages and by clusters: the same bits, which agree with the oracle, and so do the
/// lists.
/// @return most rounds of histograms that a search took
unsigned check_clusters(Problem& problem, std::span<const int> clusters, std::int64_t dense_below,
                        Lists lists) {
  CAPTURE(dense_below);
  problem.decode_by_stages(dense_below);
  const Answer by_stages(problem);
  unsigned most_deliveries = 0;
  for (const int blocks : clusters) {
    CAPTURE(blocks);
    problem.counters = {};
    const LaunchFacts facts = problem.decode_in_clusters(blocks, dense_below, lists);
    most_deliveries = std::max(most_deliveries, facts.most_deliveries);
    REQUIRE(Answer(problem) == by_stages);
    if (blocks == clusters.front()) check_decode(problem);
    if (lists != Lists::none) check_lists(problem, lists);
  }
  return most_deliveries;
}

TEST_CASE("a cluster of any size decodes as the stages do, bit by bit, and as the oracle") {
  for_each_spec([](int index) {
    Problem problem = problem_with_codes(index, RowKind::kNormal);
    check_clusters(problem, kClusters, 0, Lists::positions);
    check_clusters(problem, std::array{2}, problem.spec.budget, Lists::slots);
  });
}

TEST_CASE("rows that attend to more than a list holds are decoded among others") {
  for_each_spec([](int index) {
    const int budget = codegen::Spec::parse(kSpecs[index].spec).budget;
    Problem problem(index, RowKind::kNormal, {3 * budget, 3 * budget + 9, budget + 1, budget, 5, 0, 700});
    problem.encode();
    check_clusters(problem, std::array{1, 3, 8}, 3 * budget, Lists::none);
    check_clusters(problem, std::array{2}, 10000, Lists::none);
    problem.processors = 1;  // clusters in parts
    check_clusters(problem, std::array{4}, budget + 1, Lists::none);
  });
}

TEST_CASE("a cluster tells ties apart as the stages do, and passes over what is not finite") {
  for_each_spec([](int index) {
    Problem halves = problem_with_codes(index, RowKind::kInteger);
    check_clusters(halves, std::array{1, 8}, 0, Lists::positions);
    Problem equal = problem_with_codes(index, RowKind::kAllEqual);
    check_clusters(equal, std::array{4}, 0, Lists::positions);
    Problem special = problem_with_codes(index, RowKind::kSpecial);
    check_clusters(special, std::array{2}, special.spec.budget, Lists::none);
  });
}

TEST_CASE("a key with an infinite element has no weight where the query has the other sign") {
  for_each_spec([](int index) {
    const codegen::Spec spec = codegen::Spec::parse(kSpecs[index].spec);
    if (spec.kv_type == codegen::ElementType::f8e4m3fn) return;  // has no infinities
    Problem problem(index, RowKind::kNormal, {spec.budget, spec.budget - 3});
    problem.make_infinite(5);
    problem.encode();
    check_clusters(problem, std::array{2}, spec.budget, Lists::none);  // lists of all tokens
  });
}

TEST_CASE("a cluster selects the latest of very many equal tokens") {
  for (const int index : {0, 1, 6, 8}) {
    CAPTURE(std::string(kSpecs[index].spec));
    Problem problem(index, RowKind::kAllEqual, {1200});
    problem.encode();
    check_clusters(problem, std::array{1, 4}, 0, Lists::positions);
  }
}

TEST_CASE("a cluster finds a burst of high scores, wherever its blocks and warps meet") {
  unsigned most_deliveries = 0;
  for_each_spec([&](int index) {
    // Rows of several pieces a warp; the burst ends just before, at and after borders of slices.
    const int budget = codegen::Spec::parse(kSpecs[index].spec).budget;
    Problem problem(index, RowKind::kNormal, {700, 333});
    problem.call.window = problem.args.window = 290;
    problem.most_ring_stages = 1 << index % 3;
    problem.make_burst(640 - budget / 2, budget - 5);
    problem.make_burst(250, budget / 2);
    problem.encode();
    most_deliveries = std::max(most_deliveries, check_clusters(problem, kClusters, 0, Lists::positions));
  });
  CHECK(most_deliveries >= 2);  // some scores spread wider than a histogram
}

TEST_CASE("parts of a cluster answer rows too short for all of it") {
  unsigned most_deliveries = 0;
  int with_parts = 0;
  for_each_spec([&](int index) {
    const int budget = codegen::Spec::parse(kSpecs[index].spec).budget;
    Problem problem(index, RowKind::kNormal, {700, 333, 150, 70, 1, 0});
    problem.processors = 1;  // no two clusters run at once
    problem.make_burst(300, budget / 2);
    problem.encode();
    for (const int blocks : {2, 3, 4, 8}) {
      most_deliveries =
          std::max(most_deliveries, check_clusters(problem, std::array{blocks}, 0, Lists::positions));
      with_parts += problem.args.smallest_part < blocks ? 1 : 0;
    }
    check_clusters(problem, std::array{4}, budget, Lists::none);
    Problem equal(index, RowKind::kAllEqual, {700, 90});
    equal.processors = 1;
    equal.encode();
    check_clusters(equal, std::array{4}, 0, Lists::slots);
  });
  CHECK(with_parts >= 10);
  CHECK(most_deliveries >= 1);
}

TEST_CASE("the codes of the rows' own tokens are made on the way") {
  for_each_spec([](int index) {
    Problem problem = problem_with_codes(index, RowKind::kNormal);
    if (problem.spec.recent < problem.spec.query_rows) return;
    problem.export_codes();
    const std::vector<unsigned char> want = problem.bytes;
    problem.decode_by_stages(0);
    const Answer by_stages(problem);
    std::vector<int> own;
    std::vector<unsigned char> stale = want;
    std::uint64_t exist = 0;
    const auto row = static_cast<std::size_t>(Problem::kKvHeads * problem.spec.head_dim);
    for (int b = 0; b < problem.batch(); ++b) {
      const int length = problem.lengths[static_cast<std::size_t>(b)];
      for (int p = length - problem.spec.query_rows; p < length; ++p) {
        own.push_back(p < 0 ? -1 : static_cast<int>(problem.slot(b, p)));
        if (p < 0) continue;
        ++exist;
        for (std::size_t i = 0; i < row; ++i) {  // none of them is right
          unsigned char& code = stale[static_cast<std::size_t>(own.back()) * row + i];
          code = static_cast<unsigned char>((code + 1) % problem.spec.buckets);
        }
      }
    }
    for (const int blocks : {1, 4}) {
      problem.bytes = stale;
      problem.args.bytes = problem.bytes.data();
      problem.import_codes();
      problem.args.slots = own.data();
      problem.counters = {};
      problem.decode_in_clusters(blocks, 0, Lists::none);
      problem.args.slots = nullptr;
      CHECK(Answer(problem) == by_stages);
      CHECK(problem.counters.tokens_encoded == exist * Problem::kKvHeads);
      problem.export_codes();
      CHECK(problem.bytes == want);
    }
  });
}

TEST_CASE("small blocks of many rows decode as the stages do") {
  Problem problem(0, RowKind::kNormal, {700, 333, 150, 70, 1, 0});
  problem.processors = 1;
  problem.make_burst(300, 60);
  problem.encode();
  check_clusters(problem, std::array{1}, 0, Lists::positions);
  CHECK(problem.decoded_by == codegen::Stage::decode_pair);
  Problem equal(0, RowKind::kAllEqual, {1200, 90});
  equal.processors = 1;
  equal.encode();
  check_clusters(equal, std::array{1}, 0, Lists::slots);
  CHECK(equal.decoded_by == codegen::Stage::decode_pair);
}

TEST_CASE("clusters with room for long rows decode as the stages do") {
  for (const int index : {3, 7, 9, 13}) {  // of 5, 4, 3 and 4 lists a cluster otherwise
    CAPTURE(std::string(kSpecs[index].spec));
    Problem problem = problem_with_codes(index, RowKind::kNormal);
    problem.capacity = 300'000;
    check_clusters(problem, std::array{8}, 0, Lists::positions);
    CHECK(problem.decoded_by == codegen::Stage::decode_long);
    check_clusters(problem, std::array{8}, 3 * problem.spec.budget, Lists::none);
  }
}

TEST_CASE("a cluster obeys a row's own budget, down to none") {
  for (const int index : {0, 8}) {
    CAPTURE(std::string(kSpecs[index].spec));
    Problem problem(index, RowKind::kInteger, {200, 200, 200, 200, 200, 30});
    const std::vector<int> budgets{0, 2, 33, 1000, -3, 7};
    problem.args.row_budgets = budgets.data();
    problem.encode();
    check_clusters(problem, kClusters, 0, Lists::positions);
    check_clusters(problem, kClusters, problem.spec.budget, Lists::none);
  }
}

TEST_CASE("a cluster clamps and reports what is out of range, and never follows it") {
  for_each_spec([](int index) {
    Problem problem(index, RowKind::kNormal, {180, 180, 180});
    problem.encode();
    const std::vector<int> lengths{std::numeric_limits<int>::max(), -4, 180};
    const std::vector<int> starts{std::numeric_limits<int>::max(), 0, std::numeric_limits<int>::min()};
    const std::vector<int> table(static_cast<std::size_t>(problem.args.pages),
                                 std::numeric_limits<int>::min());
    problem.args.lengths = lengths.data();
    problem.args.starts = starts.data();
    problem.args.table = table.data();
    problem.counters = {};
    problem.decode_by_stages(problem.spec.budget);
    const Answer by_stages(problem);
    const adamas_abi::Counters counters = problem.counters;
    CHECK(counters.status == (adamas_abi::kLengthClamped | adamas_abi::kBadTable));
    problem.counters = {};
    problem.decode_in_clusters(4, problem.spec.budget, Lists::slots);
    CHECK(Answer(problem) == by_stages);
    CHECK(problem.counters.status == counters.status);
    CHECK(problem.counters.clamped_rows == counters.clamped_rows);
  });
}

TEST_CASE("ranges of a table that are none have no place, and harm no other row") {
  const int index = 7;
  Problem problem(index, RowKind::kNormal, {180, 180, 180});
  REQUIRE(problem.spec.cache_form == codegen::CacheForm::csr);
  problem.encode();
  problem.decode_by_stages(0);
  const Answer clean(problem);
  const int good = problem.args.indptr[2], end = problem.args.indptr[3];
  constexpr int kHuge = std::numeric_limits<int>::max();
  for (const auto& [first, second] :
       {std::pair{kHuge, -kHuge}, std::pair{0, 0}, std::pair{0, good / 2 - 9}}) {
    CAPTURE(first);
    const std::vector<int> ranges{first, second, good, end};
    problem.args.indptr = ranges.data();
    for (const bool by_stages : {true, false}) {
      problem.counters = {};
      if (by_stages) problem.decode_by_stages(0);
      if (!by_stages) problem.decode_in_clusters(4, 0, Lists::none);
      CHECK(problem.counters.status == adamas_abi::kBadTable);
      const int row = 2 * problem.spec.query_rows;
      for (int head = 0; head < problem.query_heads(); ++head) {
        const auto at = static_cast<std::size_t>(row) * problem.query_heads() + head;
        CHECK(problem.lse[at] == static_cast<float>(clean.values[at]));
      }
    }
  }
}

TEST_CASE("pages that are nowhere are left out and reported") {
  for_each_spec([](int index) {
    Problem problem(index, RowKind::kNormal, {120, 90});
    if (problem.spec.cache_form != codegen::CacheForm::pointers) return;
    problem.encode();
    problem.decode_by_stages(0);
    const Answer clean(problem);
    // All pages of the first sequence.
    std::vector<unsigned long long> addresses(problem.args.page_addresses,
                                              problem.args.page_addresses + problem.args.pages);
    for (int p = 0; p < 120; ++p) {
      addresses[problem.slot(0, p) / problem.args.page_tokens] = 0;
      addresses[problem.value_slot(0, p) / problem.args.page_tokens] = 0;
    }
    problem.args.page_addresses = addresses.data();
    const bool shares_pages = problem.spec.tables == codegen::Tables::split;  // with the second sequence
    for (const int way : {0, 1, 2}) {
      CAPTURE(way);
      problem.counters = {};
      if (way == 0) problem.decode_by_stages(0);
      if (way == 1) problem.decode_in_clusters(2, 0, Lists::none);
      if (way == 2) problem.dense();
      CHECK(problem.counters.status == adamas_abi::kBadTable);
      for (int head = 0; head < problem.query_heads(); ++head) {
        CHECK(std::ranges::all_of(problem.out(0, head), [](double value) { return value == 0; }));
        CHECK(problem.lse[head] == -std::numeric_limits<float>::infinity());
        const auto other = static_cast<std::size_t>(problem.query_heads() + head);
        if (way < 2 && !shares_pages) CHECK(problem.lse[other] == static_cast<float>(clean.values[other]));
      }
    }
    problem.counters = {};
    problem.encode_all();
    CHECK(problem.counters.status == 0);
    CHECK(problem.counters.tokens_encoded < static_cast<std::uint64_t>(problem.slots()) * Problem::kKvHeads);
  });
}

TEST_CASE("the generator's own choice of a cluster fits the shape, or there is none") {
  Problem problem = problem_with_codes(0, RowKind::kNormal);
  check_clusters(problem, std::array{0}, 0, Lists::positions);
  const codegen::Shape endless{.max_tokens = 100'000'000, .processors = 132};
  CHECK_FALSE(codegen::cuda_generator().decode_grid(problem.spec, problem.tuning, "sm_90a", endless));
}

}  // namespace
