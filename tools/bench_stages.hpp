// Times of the single stages of a decode on the CPU: the scan by token and query, and what the others take.
#pragma once

#include <functional>

#include <adamas/adamas.hpp>

#include "tools/timing.hpp"

namespace adamas::tools {

struct StageTimes {
  Timing prepare, scan, select, attend;  ///< microseconds of one step; attend: with its merge
  Timing warm_scan;  ///< the same scan again at once: its codes in the caches, as far as they fit there
  int threads = 1;   ///< that a launch runs on
  double token_queries = 0;  ///< tokens x query heads that a step scores
  double code_bytes = 0;     ///< that its scan reads

  /// Nanoseconds that one thread takes to score a token for a query.
  double ns(const Timing& timing) const { return timing.median * 1e3 * threads / token_queries; }
  double gbps(const Timing& timing) const { return code_bytes / timing.median / 1e3; }
};

/// Runs decodes stage by stage and fills the times; the rest is the caller's to know.
/// @param plan     of a CPU context
/// @param call_of  arguments of step i, which decode would take
/// @param steps    different ones
StageTimes time_stages(const Plan& plan, const std::function<Call(int)>& call_of, int steps, double seconds);

}  // namespace adamas::tools
