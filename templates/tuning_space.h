// How the tuning spaces beside the templates are written down: a line a key.
#pragma once

#include <string_view>

namespace adamas::templates {

/// What a key has an effect on: a value of another key, or an operation.
enum class TuningMatters {
  always,   ///< decode, whatever the other keys say
  cluster,  ///< decode with schedule=cluster
  stages,   ///< decode with schedule=stages
  dense,    ///< attending to all tokens; found separately, when decode's keys are
};

struct TuningValues {
  std::string_view key, values;  ///< values as Tuning::parse takes them, separated by spaces
  TuningMatters matters;
};

}  // namespace adamas::templates
