// CudaDecode: sizes of the decode kernel, which answers a row and K/V head in one launch by a cluster of
// blocks. The emitted source states these numbers, and static_asserts in it check that
// templates/cuda/decode_layout.cuh agrees.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "codegen/generator.hpp"

namespace adamas::codegen {

struct CudaDecode {
  int threads;  ///< of a block
  int terms;    ///< binary columns of a query head come in pairs, one pair a term
  int piece;    ///< tokens whose codes a warp scores together
  int piece_bytes;
  int key_steps;              ///< 128-bit pieces of a plane of codes
  int maxima_words;           ///< of a selection, from which its threshold is bounded
  int score_bytes;            ///< of a token's score on chip: 2 or 4
  int blocks_per_processor;   ///< that the registers allow
  std::int64_t shared_bytes;  ///< of templates/cuda/decode_layout.cuh's DecodeShared
};
/// @param unit  one of cuda_decode_units
CudaDecode cuda_decode_of(const Spec&, const Tuning&, Unit);

/// Those of the decode units that a kernel set has: none, decode, or where the Tuning leaves the threads to
/// the shape, also decode_pair.
std::vector<Unit> cuda_decode_units(const Spec&, const Tuning&, std::string_view target);

/// The launch for a shape, or nothing if its scores do not fit the shared memory of any cluster.
std::optional<Grid> cuda_decode_grid(const Spec&, const Tuning&, std::string_view target, const Shape&);

}  // namespace adamas::codegen
