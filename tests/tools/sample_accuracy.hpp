// The accuracy table of the bundled sample, as the design fixes it, against what a device gives.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <string>

#include "tools/evaluate.hpp"

namespace adamas::tests {

struct Expected {
  double recall, mass, rel_err;
};

/// Layer 14 of SmolLM2-135M-Instruct, thresholds calibrated on the same file, recent 1, query_head scope,
/// f16.
inline const std::map<std::string, std::array<Expected, 3>>& sample_table() {
  static const std::map<std::string, std::array<Expected, 3>> table{
      {"manhattan", {{{.3907, .6890, .3714}, {.4292, .7617, .2640}, {.4788, .8268, .1763}}}},
      {"dot", {{{.6202, .7883, .2177}, {.6498, .8465, .1456}, {.6748, .8957, .0932}}}},
      {"exact", {{{1, .8346, .1598}, {1, .8822, .1075}, {1, .9230, .0674}}}},
  };
  return table;
}

inline void check_sample_accuracy(const std::string& device) {
  constexpr double kTolerance = 0.003;
  const std::map<int, int> column{{64, 0}, {128, 1}, {256, 2}};
  tools::EvalOptions options;
  options.file = tools::sample_path();
  options.device = device;
  int rows = 0;
  tools::evaluate(
      options, [](const tools::EvalHeader&) {},
      [&](const tools::EvalRow& row) {
        ++rows;
        const Expected& want = sample_table().at(row.estimator)[column.at(row.budget)];
        INFO(row.estimator, ", budget ", row.budget);
        CHECK(std::abs(row.accuracy.recall - want.recall) <= kTolerance);
        CHECK(std::abs(row.accuracy.mass - want.mass) <= kTolerance);
        CHECK(std::abs(row.accuracy.rel_err - want.rel_err) <= kTolerance);
      },
      [](const std::string&) {});
  CHECK(rows == 9);
}

}  // namespace adamas::tests
