// Makes problems and scenarios use a schedule other than the device's default, such as the one that is made
// for another architecture.
#pragma once

#include <string>
#include <utility>

namespace adamas::tests {

/// Added to the Tuning of every SmallProblem and Scenario made while it lives. One at a time.
class ForcedTuning {
 public:
  explicit ForcedTuning(std::string tuning) { forced() = std::move(tuning); }
  ~ForcedTuning() { forced().clear(); }
  ForcedTuning(const ForcedTuning&) = delete;
  ForcedTuning& operator=(const ForcedTuning&) = delete;

  /// `tuning` with what is forced.
  static std::string apply(const std::string& tuning) {
    return tuning.empty() || forced().empty() ? tuning + forced() : tuning + " " + forced();
  }

 private:
  static std::string& forced() {
    static std::string text;
    return text;
  }
};

}  // namespace adamas::tests
