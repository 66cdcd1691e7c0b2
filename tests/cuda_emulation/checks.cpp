// Problems with codes and comparisons with the oracle. See checks.hpp.
#include "tests/cuda_emulation/checks.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace adamas::cuda_emulation {

std::vector<int> lengths_for(int budget) { return {budget + 70, 0, 1, budget - 1, budget, budget + 1}; }

Problem problem_with_codes(int index, oracle::RowKind kind) {
  Problem problem(index, kind, lengths_for(codegen::Spec::parse(kSpecs[index].spec).budget));
  // Made once: emulated encoding is slow.
  static std::map<std::pair<int, oracle::RowKind>, std::vector<unsigned char>> codes;
  auto& known = codes[{index, kind}];
  if (known.empty()) {
    problem.encode();
    known = problem.codes;
    problem.counters = {};
  } else {
    std::ranges::copy(known, problem.codes.begin());
  }
  return problem;
}

oracle::Call call_of(const Problem& problem, int b) {
  oracle::Call call = problem.call;
  call.dense_below = problem.args.dense_below;
  if (problem.args.row_budgets != nullptr) {
    const int* first = problem.args.row_budgets + b * problem.spec.query_rows;
    call.row_budget.assign(first, first + problem.spec.query_rows);
  }
  return call;
}

Expected expected_selection(const Problem& problem, int b) {
  const oracle::Call call = call_of(problem, b);
  const auto keys = problem.sequences[b].key_rows(problem.config, call);
  const auto codes = oracle::encode_keys(problem.config, keys, problem.thresholds.key);
  const auto queries = problem.sequences[b].query_rows(problem.config, call);
  Expected expected;
  expected.query = oracle::encode_queries(problem.config, queries, problem.thresholds.query);
  expected.scores = oracle::scores(problem.config, call, {expected.query, queries.heads, queries.dim},
                                   {codes, keys.heads, keys.dim});
  expected.selections = oracle::select_all(problem.config, call, keys.count(), expected.scores);
  return expected;
}

void check_decode(const Problem& problem) {
  const oracle::Config& config = problem.config;
  std::int64_t rows = 0, attended = 0, dense_short = 0;
  check_outputs(problem, [&](int b) {
    const oracle::Call call = call_of(problem, b);
    const auto& sequence = problem.sequences[b];
    for (int row = 0; row < problem.spec.query_rows; ++row) {
      const std::int64_t seen = oracle::visible(config, call, problem.lengths[b], row).size();
      const bool is_dense = seen <= call.dense_below;
      const std::int64_t listed = std::min<std::int64_t>(seen, oracle::row_budget(config, call, row));
      rows += seen > 0 ? 1 : 0;
      dense_short += seen > 0 && is_dense ? 1 : 0;
      attended += is_dense ? seen : listed;
    }
    return oracle::decode(config, call, sequence.query_rows(config, call), sequence.key_rows(config, call),
                          sequence.value_rows(config, call), problem.thresholds);
  });
  const auto heads = static_cast<std::uint64_t>(problem.query_heads());
  CHECK(problem.counters.rows == static_cast<std::uint64_t>(rows) * heads);
  CHECK(problem.counters.tokens_attended == static_cast<std::uint64_t>(attended) * heads);
  CHECK(problem.counters.dense_short == static_cast<std::uint64_t>(dense_short) * heads);
  CHECK(problem.counters.dense_requested == 0);
  CHECK(problem.counters.steps == 1);
  CHECK(problem.counters.clamped_rows == 0);
  CHECK(problem.counters.status == 0);
}

void check_lists(const Problem& problem, Lists lists) {
  const int rows = problem.spec.query_rows, budget = problem.spec.budget;
  for (int b = 0; b < problem.batch(); ++b) {
    CAPTURE(b);
    const Expected expected = expected_selection(problem, b);
    for (int local = 0; local < rows * problem.selections(); ++local) {
      CAPTURE(local);
      const std::int64_t list = static_cast<std::int64_t>(b) * rows * problem.selections() + local;
      oracle::Selection want = expected.selections[static_cast<std::size_t>(local)];
      if (lists == Lists::slots) {
        for (std::int32_t i = 0; i < want.count; ++i) {
          int32_t& position = want.positions[static_cast<std::size_t>(i)];
          position = static_cast<int32_t>(problem.slot(b, position));
        }
      }
      REQUIRE(problem.counts[list] == want.count);
      REQUIRE(std::ranges::equal(slice(problem.positions, list, budget), want.positions));
    }
  }
}

}  // namespace adamas::cuda_emulation
