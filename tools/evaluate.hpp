// Evaluation of a dump: every layer, estimator and budget against exact attention, on one device. `adamas
// eval` and `adamas demo` print what it yields.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tools/dump.hpp"
#include "tools/metrics.hpp"

namespace adamas::tools {

struct EvalOptions {
  std::string file;
  std::vector<int> budgets{64, 128, 256};
  std::vector<std::string> estimators{"manhattan", "dot", "exact"};
  std::string spec;        ///< keys beyond those that the dump, budget and estimator decide
  std::string thresholds;  ///< file; "" = calibrate on the dump itself
  std::string device = "auto";
};

struct EvalRow {
  int layer = 0, budget = 0;
  std::string estimator, device;
  Accuracy accuracy;
  double us = 0, dense_us = 0;  ///< us is 0 for `exact`, which no kernel estimates
  double bytes = 0, dense_bytes = 0;
  int compiles = 0;  ///< kernels compiled for this row; 0: all came from the cache
  double compile_ms = 0, load_ms = 0;
};

struct EvalHeader {
  std::string device, device_name;
  std::vector<DumpLayer> layers;
};

/// @param begin     once, before the first row
/// @param row       as each row is done
/// @param progress  what is going on, between rows
void evaluate(const EvalOptions& options, const std::function<void(const EvalHeader&)>& begin,
              const std::function<void(const EvalRow&)>& row,
              const std::function<void(const std::string&)>& progress);

}  // namespace adamas::tools
