// What the tests of emulated kernels have in common: problems with their codes made, and comparisons of what
// an operation wrote with the oracle.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "tests/cuda_emulation/problem.hpp"
#include "tests/cuda_emulation/specs.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::cuda_emulation {

using Kinds = std::vector<oracle::RowKind>;

/// Lengths around every border: empty, shorter than the query rows, the budget, and several tiles.
std::vector<int> lengths_for(int budget);

/// A problem of Spec `index` over lengths_for(its budget), with its codes made.
Problem problem_with_codes(int index, oracle::RowKind kind);

/// Calls `check` on such a problem of every Spec and of these kinds of data.
template <class Check>
void for_each_problem(const Kinds& kinds, Check check) {
  for (int index = 0; index < static_cast<int>(std::size(kSpecs)); ++index) {
    for (const oracle::RowKind kind : kinds) {
      CAPTURE(std::string(kSpecs[index].spec));
      CAPTURE(static_cast<int>(kind));
      Problem problem = problem_with_codes(index, kind);
      check(problem);
    }
  }
}

/// The part of a [rows or tokens][heads][n] array that belongs to one row and head.
template <class T>
std::span<const T> slice(const std::vector<T>& all, std::int64_t index, std::int64_t n) {
  return std::span<const T>(all).subspan(static_cast<std::size_t>(index * n), static_cast<std::size_t>(n));
}

/// Oracle selections of one sequence, [query rows][heads].
struct Expected {
  std::vector<int32_t> query;        // [query rows][query heads][head_dim]
  std::vector<std::int64_t> scores;  // [query rows][heads][tokens]
  std::vector<oracle::Selection> selections;
};
Expected expected_selection(const Problem& problem, int b);

/// The call of one sequence: its part of the row budgets, if there are any.
oracle::Call call_of(const Problem& problem, int b);

/// Compares outputs and LSE of all rows with the oracle's [query rows][query heads] of each sequence. Rows
/// whose reference is not finite are free to be anything.
template <class Reference>
void check_outputs(const Problem& problem, Reference reference) {
  const int rows = problem.spec.query_rows;
  for (int b = 0; b < problem.batch(); ++b) {
    const oracle::Output want = reference(b);
    for (int row = 0; row < rows; ++row) {
      for (int head = 0; head < problem.query_heads(); ++head) {
        CAPTURE(b);
        CAPTURE(row);
        CAPTURE(head);
        const std::int64_t i = static_cast<std::int64_t>(row) * problem.query_heads() + head;
        const auto out = slice(want.out, i, problem.spec.value_dim);
        bool finite = true;
        for (const double value : out) {
          finite = finite && std::isfinite(value);
        }
        if (!finite) continue;
        CHECK(oracle::relative_l2(problem.out(b * rows + row, head), out) <=
              oracle::tolerance(problem.config.out_type));
        if (!problem.spec.lse) continue;
        const float lse =
            problem.lse[static_cast<std::size_t>((b * rows + row) * problem.query_heads() + head)];
        if (std::isinf(want.lse[i])) {
          CHECK(static_cast<double>(lse) == want.lse[i]);
        } else {
          CHECK(static_cast<double>(lse) == doctest::Approx(want.lse[i]).epsilon(1e-4));
        }
      }
    }
  }
}

/// Outputs, LSE and counters of a decode with problem.args.dense_below. Counters must have begun at 0.
void check_decode(const Problem& problem);

/// `positions` and `counts` of all rows, or slots in place of positions.
void check_lists(const Problem& problem, Lists lists);

}  // namespace adamas::cuda_emulation
