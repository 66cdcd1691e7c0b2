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

/// The Spec that a decode unit is made for. A cluster holds few lists of a K/V head: of a larger group each part has
/// clusters of its own, which scan the same codes, as if there were more K/V heads of fewer query heads.
Spec cuda_decode_spec(const Spec&, Unit);

/// The one stage of a decode unit.
Stage cuda_decode_stage(Unit);

struct CudaDecode {
  int threads;  ///< of a block
  bool bytes;   ///< columns of a query head are of bytes (scan=bytes), not of bits
  int terms;    ///< that a score is the sum of: a column of bytes each, or a pair of columns of bits
  int columns;  ///< of a query head
  int column_words;
  int column_registers;  ///< of a lane, for 128 elements
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

/// Those of the decode units that a kernel set has: none; decode; with it decode_pair for few lists a K/V head, where
/// the Tuning leaves the threads to the shape, or decode_long for more.
std::vector<Unit> cuda_decode_units(const Spec&, const Tuning&, std::string_view target);

/// Whether calls of a shape's max_tokens launch a decode unit.
bool cuda_decode_may_launch(Unit, const Spec&, const Tuning&, std::string_view target, const Shape&);

/// The launch for a shape, or nothing if its scores do not fit the shared memory of any cluster.
std::optional<Grid> cuda_decode_grid(const Spec&, const Tuning&, std::string_view target, const Shape&);

}  // namespace adamas::codegen
