// Timing of device work: record it, repeat it, take the median. Figures are for tables and people, never for
// tests.
#pragma once

#include <algorithm>
#include <vector>

#include "runtime/device/device.hpp"

namespace adamas::tools {

/// Microseconds of one step.
struct Timing {
  double median = 0, p10 = 0, p90 = 0;
};

/// Samples for the figures: as many as fit in the time, but enough for a p10 and not without end.
inline constexpr std::size_t kLeastSamples = 5, kMostSamples = 200;

/// @param samples  at least one, in any order
inline Timing summarize(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    return samples[static_cast<std::size_t>(share * static_cast<double>(samples.size() - 1) + 0.5)];
  };
  return {.median = at(0.5), .p10 = at(0.1), .p90 = at(0.9)};
}

/// Replays a recording of `steps` steps: the device's own time, without the host's. The time of a step is a
/// replay divided by its steps. @param seconds  to spend, unless the fewest samples take longer
inline Timing time_replays(const runtime::Recording& recording, int steps, double seconds) {
  const double estimate = recording.replay(1).front();
  const auto wanted = static_cast<std::size_t>(std::max(0.0, seconds * 1e6 / std::max(estimate, 1.0)));
  std::vector<double> samples =
      recording.replay(static_cast<int>(std::clamp(wanted, kLeastSamples, kMostSamples)));
  for (double& sample : samples)
    sample /= steps;
  return summarize(std::move(samples));
}

}  // namespace adamas::tools
