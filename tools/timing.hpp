// Timing of device work: warm up, repeat, take the median. Figures are for tables and people, never for
// tests.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include <adamas/adamas.hpp>

namespace adamas::tools {

/// Microseconds of one step.
struct Timing {
  double median = 0, p10 = 0, p90 = 0;
};

/// Enqueues `step(i)`, i = 0 .. steps - 1, back to back and waits once: a pass. The time of a step is the
/// pass divided by its steps; the figures are taken over passes, after `warm_up` unmeasured ones.
template <class Step>
Timing time_steps(const Context& context, int steps, Step&& step, double seconds = 0.3, int warm_up = 2) {
  using Clock = std::chrono::steady_clock;
  const auto pass = [&] {
    const auto start = Clock::now();
    for (int i = 0; i < steps; ++i)
      step(i);
    context.synchronize();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / steps;
  };
  for (int i = 0; i < warm_up; ++i)
    pass();
  std::vector<double> samples;
  const auto begin = Clock::now();
  constexpr std::size_t kLeast = 5, kMost = 200;
  while (samples.size() < kLeast ||
         (samples.size() < kMost && std::chrono::duration<double>(Clock::now() - begin).count() < seconds)) {
    samples.push_back(pass());
  }
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    return samples[static_cast<std::size_t>(share * (samples.size() - 1) + 0.5)];
  };
  return {.median = at(0.5), .p10 = at(0.1), .p90 = at(0.9)};
}

}  // namespace adamas::tools
