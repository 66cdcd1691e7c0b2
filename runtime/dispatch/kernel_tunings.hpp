// Which Tunings a kernel is made with, and which of them a call takes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "codegen/tuning.hpp"
#include "runtime/dispatch/context.hpp"
#include "runtime/dispatch/tuning_file.hpp"

namespace adamas::runtime {

/// A shape of the tuning file, and which of a kernel's Tunings it has.
struct TunedVariant {
  TunedShape::Position position;
  std::size_t variant = 0;
};

struct KernelTunings {
  std::vector<codegen::Tuning> tunings;  ///< each once; the first is that of the capacities
  std::vector<TunedVariant> tuned;
};

/// What the host asked for; else those that the tuning files have for shapes within the capacities (of the
/// nearest shape, if for none); else what a pack's kernels were compiled with; else the target's default.
/// @throws codegen::Error(ADAMAS_INVALID_SPEC) for what the host asked for
KernelTunings kernel_tunings(const Context& context, const std::string& text, const codegen::Spec& spec,
                             const std::string& target, const TunedShape& capacity);

/// The variant of the nearest shape, 0 without any. A few nanoseconds a shape: plans are made while serving.
std::size_t nearest_variant(const std::vector<TunedVariant>& tuned, const TunedShape& shape);

}  // namespace adamas::runtime
