// CudaFacts: what the CUDA generator decides from Spec and Tuning. The emitted source states these numbers,
// the grid obeys them, and static_asserts in the source check that the templates agree.
#pragma once

#include <cstdint>

#include "codegen/facts.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::codegen {

struct CudaFacts {
  Facts facts;
  int words;                ///< 32-bit words of one bit plane of a vector
  int query_planes;         ///< bit planes of a prepared query
  int prepared_bytes;       ///< of one prepared query, a multiple of 64
  int words_at_once;        ///< words of a plane that the scan keeps in registers
  int rotate_scratch;       ///< floats of shared memory a warp needs to rotate a vector; 1 if none
  int lane_elements;        ///< of a key, see templates/cuda/encode_lanes.cuh; 0: keys are encoded in turn
  int slots_per_warp;       ///< that a warp of encode, export and import works through at once
  int encode_blocks;        ///< of encode that a multiprocessor has registers for
  int encode_shared_bytes;  ///< that a block of encode copies keys to
  int list_heads;           ///< query heads that share a list
  int list_passes;          ///< in which they are attended to
  int list_heads_at_once;   ///< of each pass
  int pass_query_bytes;     ///< their queries, see PassQueries of templates/cuda/list_attention.cuh
  int digits;               ///< radix passes of the selection
  int digit_bits;           ///< of one digit of an order key
};
CudaFacts cuda_facts_of(const Spec&);

/// Threads and work of the kernels that Tuning leaves alone.
inline constexpr int kCudaEncodeThreads = 128;
inline constexpr int kCudaTile = 16;  ///< tokens that a warp attends to at once; chunks are whole tiles
inline constexpr int kCudaPrepareThreads = 128;
inline constexpr int kCudaMergeThreads = 256;   ///< at least value_dim / 2
inline constexpr int kCudaMostHeadsAtOnce = 8;  ///< query heads for which attend keeps sums in registers

/// How attend's warps share a chunk of a row that attends to all, see templates/cuda/dense_tiles.cuh.
struct CudaDenseTiles {
  int warps;  ///< that have tiles; 0: the Spec is not for tensor cores, see templates/cuda/dense_chunk.cuh
  int slots;  ///< halves of tiles in a warp's ring
  int head_tiles;  ///< of 8 query heads, that are taken at once
};
CudaDenseTiles cuda_dense_tiles(const Spec&, const Tuning&);

/// Into how many blocks attend cuts a row that attends to all it sees, over all K/V heads: two a multiprocessor of
/// the largest cards, and a constant, so that results do not depend on the card.
inline constexpr int kCudaDenseBlocks = 256;
/// Bounds of its chunks, of which Tuning::dense_chunk is the upper one, see dense_chunk_tokens of
/// templates/cuda/partial.cuh. Between them they are whole rounds of the warps.
int cuda_least_dense_chunk(const Tuning&);
int cuda_dense_chunk_step(const Tuning&);
/// The most chunks of a row of at most `tokens` tokens.
std::int64_t cuda_dense_chunks(const Tuning&, int kv_heads, std::int64_t tokens);

/// Partial sums of a tile or a chunk and one query head in shared memory, see kSharedPartialFloats.
std::int64_t cuda_shared_partial_bytes(const Spec&);

/// Dynamic shared memory of attend: the larger of DenseShared (templates/cuda/dense_tiles.cuh
/// or dense_chunk.cuh) and ListShared (attend.cuh).
std::int64_t cuda_attend_shared_bytes(const Spec&, const Tuning&);

/// Shared memory that a block may have on an architecture (80, 90, ...).
std::int64_t cuda_shared_limit(int architecture);

}  // namespace adamas::codegen
