// Which tokens a row attends to: the total order of the contract, forced tokens first.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/oracle/config.hpp"

namespace adamas::oracle {

/// One selection: `count` ascending positions, then -1 up to the Spec's budget.
struct Selection {
  std::vector<int32_t> positions;
  int32_t count = 0;

  /// The selected positions without the padding.
  std::span<const int32_t> chosen() const { return std::span(positions).first(static_cast<size_t>(count)); }
};

/// Budget of a row: the Spec's, or its own cut to 0..Spec's.
int row_budget(const Config& config, const Call& call, int row);

/// The selection of one row and head. `scores` [N] are of all tokens of the sequence; larger is better unless
/// `smaller_is_better`. Takes any arithmetic score, so that exact logits select by the same rules.
///
/// Order: forced tokens (the first `sink` positions if visible, the last `recent` visible ones), then the
/// better score; among equals, forced ones included, the later position. So a row budget smaller than sink +
/// recent keeps the recent tokens and gives up the earliest sinks.
template <class Score>
Selection select(const Config& config, Range seen, int budget, std::span<const Score> scores,
                 bool smaller_is_better);

/// Selections [R][heads] of a sequence of `tokens` from scores [R][heads][tokens] (see scores()).
std::vector<Selection> select_all(const Config& config, const Call& call, int64_t tokens,
                                  const std::vector<int64_t>& scores);

extern template Selection select<int64_t>(const Config&, Range, int, std::span<const int64_t>, bool);
extern template Selection select<double>(const Config&, Range, int, std::span<const double>, bool);

}  // namespace adamas::oracle
