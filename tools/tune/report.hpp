// The report of a tuning run: one HTML file that needs nothing else, with figures as pictures (inline SVG)
// and as tables.
#pragma once

#include <string>
#include <vector>

#include "tools/tune/record.hpp"

namespace adamas::tools {

/// One Spec on one device.
struct TunedSpec {
  TuneSubject subject;
  std::vector<codegen::TuningParameter> parameters;  ///< of the target, for the sensitivities
  std::vector<ShapeRecord> records;
};

std::string tuning_report(const std::vector<TunedSpec>& specs);

/// How much a parameter's value costs: the fastest trial with it, over the fastest of all. Values that no
/// timed trial has are left out.
struct ValueCost {
  std::string value;
  double ratio = 1;
  int trials = 0;
};
std::vector<ValueCost> sensitivity(const ShapeRecord& record, const codegen::TuningParameter& parameter,
                                   const std::string& spec, const std::string& target);

}  // namespace adamas::tools
