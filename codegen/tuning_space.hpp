// The Tunings worth trying for a Spec on a target: all combinations of the values that are listed beside the
// templates, less those that the generator refuses or that mean the same as another.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "codegen/generator.hpp"

namespace adamas::codegen {

struct TuningParameter {
  std::string key;
  std::vector<std::string> values;
  bool dense = false;  ///< has an effect on attending to all tokens, not on decode
};

/// A combination that is not tried, and why.
struct ExcludedTuning {
  std::string tuning;  ///< the keys that differ from the default's
  std::string why;
};

struct TuningSpace {
  std::vector<TuningParameter> parameters;
  std::vector<Tuning> decode;  ///< the target's default first; all with its dense_chunk
  std::vector<ExcludedTuning> excluded;
};

/// For launches of one shape. @throws Error as Generator::check, for the default Tuning
TuningSpace tuning_space(const Spec&, std::string_view target, const Shape&);

/// `chosen` with each value of the keys that matter to attending to all tokens, its own first.
std::vector<Tuning> dense_tunings(const Spec&, std::string_view target, const Tuning& chosen);

/// The keys of `tuning` that differ from `base`: "cluster=4 chunk=64"; "" if none does.
std::string tuning_difference(const Tuning& tuning, const Tuning& base);

/// The value of a key, as Tuning::text() has it. @throws std::out_of_range for one that is none
std::string tuning_value(const Tuning& tuning, std::string_view key);

}  // namespace adamas::codegen
