// The text that only a generator can write: constants of one Spec and Tuning, and the straight-line formulas
// that follow from them. Everything else of a CUDA unit is templates/cuda.
#pragma once

#include <span>
#include <string>

#include "codegen/generator.hpp"

namespace adamas::codegen {

/// Constants, then the functions that the templates of some units call: rotate and bucket_of where vectors
/// are encoded, score_words in the select unit, score_rows in the decode unit.
/// @param head_parts  of a group that have clusters of their own; the Spec is then cuda_decode_spec's
std::string cuda_specialization(const Spec&, const Tuning&, std::span<const Unit> units, int head_parts = 1);

}  // namespace adamas::codegen
