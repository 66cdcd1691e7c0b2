// How good a selection is, measured against exact attention.
#include "tests/oracle/metrics.hpp"

#include <algorithm>
#include <cmath>

namespace adamas::oracle {

double relative_l2(std::span<const double> a, std::span<const double> b) {
  double difference = 0;
  double reference = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    reference += b[i] * b[i];
  }
  if (difference == 0) return 0;
  return std::sqrt(difference) / std::sqrt(reference);
}

Reference::Reference(const Config& config, const Call& call, std::span<const float> query, int64_t head,
                     const Rows<float>& keys, const Rows<float>& values, Range seen)
    : config_(config), call_(call), query_(query), head_(head), keys_(keys), values_(values), seen_(seen) {
  logits_.assign(static_cast<size_t>(seen.end), 0.0);
  for (int64_t p = seen.begin; p < seen.end; ++p) {
    logits_[static_cast<size_t>(p)] = logit(config, call, query, keys.at(p, head / config.group));
  }
  dense_ = attend(config, call, query, head, keys, values, all_positions(seen));
}

Selection Reference::exact_selection(int budget) const {
  return select<double>(config_, seen_, budget, logits_, /*smaller_is_better=*/false);
}

Metrics Reference::measure(const Selection& selection, int budget) const {
  const Selection best = exact_selection(budget);
  std::vector<int32_t> common;
  std::set_intersection(selection.chosen().begin(), selection.chosen().end(), best.chosen().begin(),
                        best.chosen().end(), std::back_inserter(common));

  Metrics metrics;
  metrics.recall = best.count == 0 ? 1.0 : static_cast<double>(common.size()) / best.count;
  // Probabilities of the plain softmax over what the row sees; a sink logit takes no part.
  for (const int32_t p : selection.chosen()) {
    metrics.mass += std::exp(logits_[static_cast<size_t>(p)] - dense_.lse);
  }
  const HeadOutput sparse = attend(config_, call_, query_, head_, keys_, values_, selection.chosen());
  metrics.rel_err = relative_l2(sparse.out, dense_.out);
  return metrics;
}

}  // namespace adamas::oracle
