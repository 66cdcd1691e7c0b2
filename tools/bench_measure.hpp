// Measurements of bench: a decode step of one shape, sparse and dense; encoding; and the length from which
// sparse decode is the faster.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "runtime/device/device.hpp"
#include "tools/bench_data.hpp"
#include "tools/bench_shapes.hpp"
#include "tools/bench_stages.hpp"
#include "tools/timing.hpp"

namespace adamas::tools {

/// What stays the same for all shapes of a run.
struct BenchMachine {
  const Context& context;
  const runtime::Device& device;  ///< the context's own
  bool graphs;                    ///< steps are replayed from a CUDA graph
  double read_gbps;               ///< measured
  double cold_bytes;    ///< read between two uses of a cache, they leave nothing of it: see bandwidth.hpp
  double memory_bytes;  ///< that caches may take together
  double launch_ns;     ///< host time of a launch of an empty kernel; 0 where it is not measured
};

struct BenchOptions {
  std::string tuning;
  KeyPattern keys = KeyPattern::random;
  bool scattered = false;  ///< pages in random order
  bool encode = false;     ///< time encoding, too
  double seconds = 0.3;    ///< to spend on each figure
};

struct EncodeTiming {
  Timing all, last;      ///< the whole cache; one token a sequence
  Timing step;           ///< a decode step with append_slots
  double key_bytes = 0;  ///< read by `all`
};

struct HostCost {
  double call_ns = 0;    ///< one call of decode
  double launches = 0;   ///< that it enqueues
  double launch_ns = 0;  ///< of one empty kernel
  /// What the call takes beyond the driver's own launches.
  double beyond_ns() const { return call_ns - launches * launch_ns; }
};

/// One shape with one budget.
struct BenchRow {
  BenchShape shape;
  codegen::Spec spec;
  std::string tuning, target;         // canonical texts of what ran
  Timing sparse, dense;               // one step
  double bytes = 0, dense_bytes = 0;  // that a step must read
  int sets = 1, steps = 1;            // caches in turn; steps of one replay
  double set_bytes = 0;               // of one of these caches with its codes
  std::optional<EncodeTiming> encode;
  std::optional<StageTimes> stages;  ///< CPU
  std::optional<HostCost> host;      ///< CUDA
};
BenchRow measure_shape(const BenchMachine&, const codegen::Spec&, const BenchShape&, const BenchOptions&);

/// A decode step over sequences of `tokens`, by selection and by attending to everything (dense_below).
struct CrossoverPoint {
  std::int64_t tokens = 0;
  Timing sparse, dense;
};
struct Crossover {
  std::vector<CrossoverPoint> points;
  std::int64_t dense_below = 0;  ///< recommended
};
/// Lengths doubling from 256 to the shape's capacity, until selection has won twice running.
Crossover find_crossover(const BenchMachine&, const codegen::Spec&, const BenchShape&, const BenchOptions&);

/// The length at which the two take the same time, between the points around it on logarithmic scales; at
/// least the budget (up to there selection selects everything), the last length where dense always won.
std::int64_t recommend_dense_below(const std::vector<CrossoverPoint>& points, int budget);

}  // namespace adamas::tools
