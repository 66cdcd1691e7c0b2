// How good a selection is: recall, softmax mass and relative output error, as the eval command defines them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/oracle/attend.hpp"
#include "tests/oracle/config.hpp"
#include "tests/oracle/select.hpp"

namespace adamas::oracle {

struct Metrics {
  double recall = 0;   ///< share of the exact top-budget (same forced tokens) that was selected
  double mass = 0;     ///< exact softmax probability on the selected tokens
  double rel_err = 0;  ///< L2 of (output - dense output) over L2 of dense output
};

/// ||a - b|| / ||b||; 0 if both are zero.
double relative_l2(std::span<const double> a, std::span<const double> b);

/// Exact attention of one query head of one row, to measure selections against.
class Reference {
 public:
  /// Arguments as attend()'s; `seen` is what the row sees. Keys and values must outlive the object.
  Reference(const Config& config, const Call& call, std::span<const float> query, int64_t head,
            const Rows<float>& keys, const Rows<float>& values, Range seen);

  /// The top-budget by exact logits, with the same forced tokens and tie rule.
  Selection exact_selection(int budget) const;
  Metrics measure(const Selection& selection, int budget) const;

 private:
  const Config config_;
  const Call call_;
  const std::span<const float> query_;
  const int64_t head_;
  const Rows<float> keys_;
  const Rows<float> values_;
  const Range seen_;
  std::vector<double> logits_;  // [seen_.end]; positions before seen_.begin are unused
  HeadOutput dense_;
};

}  // namespace adamas::oracle
