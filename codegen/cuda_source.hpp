// The text that only a generator can write: constants of one Spec and Tuning, and the straight-line formulas
// that follow from them. Everything else of a CUDA unit is templates/cuda.
#pragma once

#include <string>

#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::codegen {

/// Constants, then the functions rotate, bucket_of, score_words. `formulas` off leaves the functions out, for
/// units that neither rotate nor score.
std::string cuda_specialization(const Spec&, const Tuning&, bool formulas);

}  // namespace adamas::codegen
