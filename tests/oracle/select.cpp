// Which tokens a row attends to: sort every visible token by the contract's total order, keep the first ones.
#include "tests/oracle/select.hpp"

#include <algorithm>
#include <stdexcept>

namespace adamas::oracle {

Range visible(const Config& config, const Call& call, int64_t tokens, int row) {
  const int64_t own = tokens - config.query_rows + row;
  if (own < 0) return {0, 0};
  int64_t begin = 0;
  if (config.window && own - call.window + 1 > 0) begin = own - call.window + 1;
  return {std::min(begin, own + 1), own + 1};
}

int row_budget(const Config& config, const Call& call, int row) {
  if (call.row_budget.empty()) return config.budget;
  return std::clamp(call.row_budget.at(static_cast<size_t>(row)), 0, config.budget);
}

template <class Score>
Selection select(const Config& config, Range seen, int budget, std::span<const Score> scores,
                 bool smaller_is_better) {
  struct Candidate {
    int64_t position;
    bool forced;
    Score score;
  };
  std::vector<Candidate> candidates;
  for (int64_t p = seen.begin; p < seen.end; ++p) {
    const bool forced = p < config.sink || p >= seen.end - config.recent;
    candidates.push_back({p, forced, scores[static_cast<size_t>(p)]});
  }
  std::sort(candidates.begin(), candidates.end(), [&](const Candidate& a, const Candidate& b) {
    if (a.forced != b.forced) return a.forced;
    if (!a.forced && a.score != b.score) return (a.score > b.score) != smaller_is_better;
    return a.position > b.position;
  });
  if (static_cast<int64_t>(candidates.size()) > budget) candidates.resize(static_cast<size_t>(budget));

  Selection selection;
  for (const Candidate& c : candidates)
    selection.positions.push_back(static_cast<int32_t>(c.position));
  std::sort(selection.positions.begin(), selection.positions.end());
  selection.count = static_cast<int32_t>(selection.positions.size());
  selection.positions.resize(static_cast<size_t>(config.budget), -1);
  return selection;
}

template Selection select<int64_t>(const Config&, Range, int, std::span<const int64_t>, bool);
template Selection select<double>(const Config&, Range, int, std::span<const double>, bool);

std::vector<Selection> select_all(const Config& config, const Call& call, int64_t tokens,
                                  const std::vector<int64_t>& scores) {
  const int64_t heads = selecting_heads(config, call);
  if (static_cast<int64_t>(scores.size()) != config.query_rows * heads * tokens) {
    throw std::logic_error("oracle: scores must be [query_rows][heads][tokens]");
  }
  std::vector<Selection> result;
  for (int row = 0; row < config.query_rows; ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      const auto offset = static_cast<size_t>((row * heads + head) * tokens);
      result.push_back(select<int64_t>(config, visible(config, call, tokens, row),
                                       row_budget(config, call, row),
                                       std::span(scores).subspan(offset, static_cast<size_t>(tokens)),
                                       config.estimator == Estimator::kManhattan));
    }
  }
  return result;
}

}  // namespace adamas::oracle
