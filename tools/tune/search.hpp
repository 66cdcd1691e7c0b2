// The search of `adamas tune` for one shape: which of many candidates is the fastest. Knows nothing of
// kernels: a Meter times them, a device's or a simulated one.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace adamas::tools {

/// Times of one candidate, a figure a pass; or why there are none.
struct Passes {
  std::vector<double> us;
  std::string failure;
};

class Meter {
 public:
  virtual ~Meter() = default;
  /// Makes a candidate ready, and checks its answer. "" or why it cannot win.
  virtual std::string prepare(std::size_t candidate) = 0;
  /// Times candidates in turn, `rounds` times over, so that what drifts drifts for all of them.
  /// @return in the order given; all of `rounds` figures, or a failure
  virtual std::vector<Passes> measure(std::span<const std::size_t> candidates, int rounds) = 0;
};

/// What is known of a candidate.
struct Trial {
  enum class State {
    waiting,  ///< not timed yet
    running,  ///< may still win
    dropped,  ///< slower than the best
    failed,
  };
  State state = State::waiting;
  double us = 0;      ///< median
  double ratio = 0;   ///< of its time to candidate 0's of the same round, median
  double spread = 0;  ///< of that ratio: half the distance between its quartiles
  int passes = 0;
  std::string why = {};  ///< failed: what happened

  /// What candidate 0 took in the same rounds: its median over all rounds may be of a faster or slower time.
  double default_us() const { return ratio > 0 ? us / ratio : 0; }
};

struct SearchOptions {
  /// The winner must be faster than candidate 0 by this share, else candidate 0 stays.
  double margin = 0.01;
  int first_rounds = 3;  ///< of every candidate; survivors get twice as many each time
  int most_rounds = 48;  ///< of a candidate, in all
  /// First results of an earlier, interrupted search; by candidate.
  std::map<std::size_t, Trial> known = {};
  /// Asked between measurements: whether to stop and take what has been found.
  std::function<bool()> stop = [] { return false; };
  /// After each change; `candidate` is the one that changed.
  std::function<void(const std::vector<Trial>& trials, std::size_t candidate)> changed = [](const auto&,
                                                                                            auto) {};
};

struct SearchResult {
  std::size_t best = 0;
  std::vector<Trial> trials;
  bool complete = false;  ///< it was not stopped
  int passes = 0;         ///< that were timed, in all
};

/// Successive halving. Candidate 0 is the default and always timed along: ratios to it, round by round, are
/// what is compared. @throws codegen::Error(ADAMAS_UNAVAILABLE) if candidate 0 fails
SearchResult search(Meter& meter, std::size_t candidates, const SearchOptions& options);

}  // namespace adamas::tools
