// Successive halving: see search.hpp.
#include "tools/tune/search.hpp"

#include <algorithm>
#include <cmath>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::tools {
namespace {

double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return values[static_cast<std::size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
}

class Search {
 public:
  Search(Meter& meter, std::size_t candidates, const SearchOptions& options)
      : meter_(meter), options_(options), ratios_(candidates) {
    result_.trials.resize(candidates);
    times_.resize(candidates);
  }

  SearchResult run() {
    start_default();
    for (std::size_t i = 1; i < result_.trials.size() && !options_.stop(); ++i)
      start(i);
    std::vector<std::size_t> left = by_ratio();
    int rounds = options_.first_rounds;
    while (!decided(left) && !options_.stop()) {
      left.resize(std::max<std::size_t>(survivors(left), 1));
      drop_all_but(left);
      rounds = std::min(2 * rounds, options_.most_rounds);
      time(left, rounds);
      left = by_ratio();
    }
    result_.complete = !options_.stop();
    if (!left.empty() && result_.trials[left.front()].ratio < 1 - options_.margin)
      result_.best = left.front();
    return std::move(result_);
  }

 private:
  void start_default() {
    if (const std::string why = meter_.prepare(0); !why.empty()) fail_default(why);
    Trial& trial = result_.trials[0];
    trial.state = Trial::State::running;
    time({}, options_.first_rounds);
  }

  /// The first look at a candidate.
  void start(std::size_t candidate) {
    Trial& trial = result_.trials[candidate];
    if (const auto known = options_.known.find(candidate); known != options_.known.end()) {
      trial = known->second;
      if (trial.state == Trial::State::failed) return changed(candidate);
    }
    if (const std::string why = meter_.prepare(candidate); !why.empty()) {
      // Who stops a search may have stopped its compilers, too: that is no candidate's fault.
      if (options_.stop()) return;
      return fail(candidate, why);
    }
    trial.state = Trial::State::running;
    if (trial.passes > 0) {
      // Its place in the order is known; figures of this run come with the next round.
      ratios_[candidate].assign(1, trial.ratio);
      times_[candidate].assign(1, trial.us);
      return changed(candidate);
    }
    time({candidate}, options_.first_rounds);
  }

  /// Times candidates beside the default. Those that fail together are timed one by one: the others are
  /// innocent.
  void time(const std::vector<std::size_t>& candidates, int rounds) {
    std::vector<std::size_t> order{0};
    std::ranges::copy_if(candidates, std::back_inserter(order), [](std::size_t i) { return i != 0; });
    const std::vector<Passes> passes = meter_.measure(order, rounds);
    const bool whole = std::ranges::all_of(passes, [](const Passes& p) { return p.failure.empty(); });
    if (!whole && order.size() > 2) {
      for (const std::size_t candidate : order) {
        if (candidate != 0) time({candidate}, rounds);
      }
      return;
    }
    if (!passes[0].failure.empty() && order.size() == 1) fail_default(passes[0].failure);
    if (!whole) {
      const std::string& own = passes.back().failure;
      return fail(order.back(), own.empty() ? passes[0].failure : own);
    }
    for (std::size_t i = 0; i < order.size(); ++i)
      add(order[i], passes[i].us, passes[0].us);
  }

  void add(std::size_t candidate, const std::vector<double>& us, const std::vector<double>& default_us) {
    for (std::size_t i = 0; i < us.size(); ++i) {
      ratios_[candidate].push_back(us[i] / default_us[i]);
      times_[candidate].push_back(us[i]);
    }
    result_.passes += static_cast<int>(us.size());
    Trial& trial = result_.trials[candidate];
    trial.us = quantile(times_[candidate], 0.5);
    trial.ratio = quantile(ratios_[candidate], 0.5);
    trial.spread = (quantile(ratios_[candidate], 0.75) - quantile(ratios_[candidate], 0.25)) / 2;
    trial.passes = static_cast<int>(times_[candidate].size());
    changed(candidate);
  }

  void fail(std::size_t candidate, const std::string& why) {
    result_.trials[candidate].state = Trial::State::failed;
    result_.trials[candidate].why = why;
    changed(candidate);
  }

  [[noreturn]] static void fail_default(const std::string& why) {
    throw codegen::Error(ADAMAS_UNAVAILABLE, "tune", "the default Tuning",
                         "must run: others are compared with it", why);
  }

  /// Those that may still win, fastest first.
  std::vector<std::size_t> by_ratio() const {
    std::vector<std::size_t> left;
    for (std::size_t i = 0; i < result_.trials.size(); ++i) {
      if (result_.trials[i].state == Trial::State::running) left.push_back(i);
    }
    std::ranges::stable_sort(left, {}, [&](std::size_t i) { return result_.trials[i].ratio; });
    return left;
  }

  /// The error of a median of so many figures, in ratios.
  double error_of(std::size_t candidate) const {
    const Trial& trial = result_.trials[candidate];
    return 1.86 * trial.spread /
           std::sqrt(std::max(trial.passes, 1));  // 1.25 sigma / sqrt n; quartiles at .674 sigma
  }

  /// How many of `left` go on: the better half, and a few more who are within the errors of the best.
  std::size_t survivors(const std::vector<std::size_t>& left) const {
    std::size_t count = (left.size() + 1) / 2;
    const std::size_t best = left.front();
    while (count < left.size() && count < 8 &&
           result_.trials[left[count]].ratio - 2 * error_of(left[count]) <
               result_.trials[best].ratio + 2 * error_of(best)) {
      ++count;
    }
    return count;
  }

  /// Whether there is nothing more to find out: one is left, or those that are have had all their rounds.
  bool decided(const std::vector<std::size_t>& left) const {
    if (left.size() <= 1)
      return left.empty() || result_.trials[left.front()].passes >= 2 * options_.first_rounds;
    return std::ranges::all_of(
        left, [&](std::size_t i) { return result_.trials[i].passes >= options_.most_rounds; });
  }

  void drop_all_but(const std::vector<std::size_t>& left) {
    for (std::size_t i = 0; i < result_.trials.size(); ++i) {
      Trial& trial = result_.trials[i];
      if (trial.state != Trial::State::running || std::ranges::find(left, i) != left.end()) continue;
      trial.state = Trial::State::dropped;
      changed(i);
    }
  }

  void changed(std::size_t candidate) { options_.changed(result_.trials, candidate); }

  Meter& meter_;
  const SearchOptions& options_;
  SearchResult result_;
  std::vector<std::vector<double>> ratios_, times_;  // by candidate, a figure a pass
};

}  // namespace

SearchResult search(Meter& meter, std::size_t candidates, const SearchOptions& options) {
  return Search(meter, candidates, options).run();
}

}  // namespace adamas::tools
