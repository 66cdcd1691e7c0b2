// What the generator writes for the default Spec, so that editors and nvcc can read the templates: in an
// emitted unit the text of another Spec stands in this place. A test compares this file with the generator's
// output, and prints what belongs here where they differ.
// clang-format off
#pragma once

#include "templates/cuda/binary_mma.cuh"
#include "templates/cuda/byte_codes.cuh"
#include "templates/cuda/element.cuh"
#include "templates/cuda/group.cuh"
#include "templates/cuda/hadamard.cuh"

namespace adamas_cuda {

// What the caller asked for.
inline constexpr int kHeadDim = 128;
inline constexpr int kValueDim = 128;
inline constexpr int kBuckets = 4;
inline constexpr bool kDot = true;
inline constexpr int kBudget = 128;
inline constexpr int kSink = 0;
inline constexpr int kRecent = 1;
inline constexpr int kGroup = 1;
inline constexpr int kHeadParts = 1;
inline constexpr int kQueryRows = 1;
inline constexpr Element kKvType = Element::f16;
inline constexpr bool kScaled = false;
inline constexpr Element kQueryType = Element::f16;
inline constexpr Element kOutType = Element::f16;
inline constexpr bool kPaged = true;
inline constexpr int kPageSize = 16;
inline constexpr bool kCsr = false;
inline constexpr bool kPointers = false;
inline constexpr bool kSplitTables = false;
inline constexpr bool kLse = true;
inline constexpr bool kSoftCap = false;
inline constexpr bool kWindow = false;
inline constexpr bool kSinkLogits = false;

// What follows from it.
inline constexpr int kWords = 4;
inline constexpr int kWordsAtOnce = 4;
inline constexpr int kPlanes = 2;
inline constexpr int kQueryPlanes = 4;
inline constexpr int kQueryMax = 7;
inline constexpr int kScoreLimit = 2688;
inline constexpr int kKeyForced = 5377;
inline constexpr int kSelectionsPerKvHead = 1;
inline constexpr int kDigits = 1;
inline constexpr int kDigitBits = 13;
inline constexpr int kRotateScratch = 1;
inline constexpr int kPreparedBytes = 128;
using OrderKey = unsigned short;

// How the work is cut.
inline constexpr int kScanTile = 1024;
inline constexpr int kChunk = 64;
inline constexpr int kDenseChunk = 2048;
inline constexpr int kLeastDenseChunk = 512;
inline constexpr int kDenseChunkStep = 128;
inline constexpr int kDenseBlocks = 256;
inline constexpr int kThreads = 256;
inline constexpr int kEncodeThreads = 128;
inline constexpr int kSlotsPerWarp = 16;
inline constexpr bool kKeysInLanes = true;
inline constexpr int kLaneElements = 64;
inline constexpr int kEncodeBlocks = 4;
inline constexpr int kEncodeSharedBytes = 36864;
inline constexpr int kPrepareThreads = 128;
inline constexpr int kMergeThreads = 256;
inline constexpr int kMostHeadsAtOnce = 8;
inline constexpr int kDenseWarps = 8;
inline constexpr int kDenseSlots = 2;
inline constexpr int kDenseHeadTiles = 1;
inline constexpr int kAttendSharedBytes = 73728;

/// A query head as the scan meets it.
struct alignas(16) PreparedQuery {
  unsigned planes[kQueryPlanes][kWords];  ///< dot: two's complement bits; manhattan: plane t = [code > t]
  int bias;                               ///< order key where no plane has a bit in common with the key's
};

static_assert(sizeof(adamas_abi::Args) == 488, "the host and the kernels disagree about the arguments");
static_assert(sizeof(PreparedQuery) <= kPreparedBytes, "a prepared query outgrows its workspace");
static_assert(kKeyForced >> (kDigits * kDigitBits) == 0, "order keys have more digits than are searched");
static_assert(kKeyForced <= static_cast<OrderKey>(-1), "order keys do not fit their type");

inline constexpr float kHadamardNorm = 0x1.6a09e6p-4f;

/// Orthonormal Hadamard transform of size 128 = 1 * 2^7 of each of the 1 blocks of a vector.
__device__ __forceinline__ void rotate(float (&x)[kWords], float*) {
  butterfly<1>(x);
  butterfly<2>(x);
  butterfly<4>(x);
  butterfly<8>(x);
  butterfly<16>(x);
  butterfly<32>(x);
  butterfly<64>(x);
  scale(x, kHadamardNorm);
}

/// The same of vectors that lie in lanes, where kKeysInLanes, but for the product with kHadamardNorm: radix-2
/// stages alone.
__device__ __forceinline__ void rotate_in_lanes(float (&x)[kLaneElements]) {
  lane_butterfly<1>(x);
  lane_butterfly<2>(x);
  lane_butterfly<4>(x);
  lane_butterfly<8>(x);
  lane_butterfly<16>(x);
  lane_butterfly<32>(x);
  lane_butterfly<64>(x);
}

/// Code of an element: the number of thresholds strictly below it; 0 for NaN.
__device__ __forceinline__ unsigned bucket_of(float y, const float (&t)[kBuckets - 1]) {
  unsigned code = y > t[0];
  code += y > t[1];
  code += y > t[2];
  return code;
}

/// What kWordsAtOnce words of a token's codes, from word `from` of the row on, add to its order key. The sum
/// over a row, and the query's bias: kScoreLimit + sum of q_i (2 c_i - (kBuckets - 1)).
__device__ __forceinline__ int score_words(const unsigned (&codes)[kPlanes][kWordsAtOnce],
                                           const PreparedQuery& query, int from) {
  int a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0;
#pragma unroll
  for (int w = 0; w < kWordsAtOnce; ++w) {
    const unsigned c0 = codes[0][w];
    const unsigned c1 = codes[1][w];
    const unsigned q0 = query.planes[0][from + w];
    const unsigned q1 = query.planes[1][from + w];
    const unsigned q2 = query.planes[2][from + w];
    const unsigned q3 = query.planes[3][from + w];
    a0 = a0 + __popc(q0 & c0);
    a1 = a1 + __popc(q0 & c1) + __popc(q1 & c0);
    a2 = a2 + __popc(q1 & c1) + __popc(q2 & c0);
    a3 = a3 + __popc(q2 & c1) - __popc(q3 & c0);
    a4 = a4 - __popc(q3 & c1);
  }
  return 2 * (a0 + 2 * a1 + 4 * a2 + 8 * a3 + 16 * a4);
}

// The decode kernel.
inline constexpr int kDecodeThreads = 512;
inline constexpr bool kByteColumns = false;
inline constexpr int kTerms = 2;
inline constexpr int kColumns = 4;
inline constexpr int kKeySteps = 1;
inline constexpr int kColumnRegisters = 1;
inline constexpr int kColumnWords = 4;
inline constexpr int kMaximaWords = 256;
inline constexpr int kPiece = 64;
inline constexpr int kPieceBytes = 2048;
inline constexpr int kDecodeBlocksPerProcessor = 1;
inline constexpr int kDecodeSharedBytes = 4864;
using Score = unsigned short;

/// Scores of this lane's tokens, rows lane / 4 and lane / 4 + 8 of 16, for query head lane % 4 of a round:
/// order key + 1.
/// @param codes, codes_below  word lane % 4 of the planes of those rows
/// @param columns             of column lane / 4 of every term
__device__ __forceinline__ void score_rows(const unsigned (&codes)[kPlanes][kKeySteps],
                                           const unsigned (&codes_below)[kPlanes][kKeySteps],
                                           const unsigned (&columns)[kTerms][kKeySteps * kColumnRegisters],
                                           int bias, int (&score)[2]) {
  int c0_0[4] = {0, 0, 0, 0};
  int c0_1[4] = {0, 0, 0, 0};
  int c1_0[4] = {0, 0, 0, 0};
  int c1_1[4] = {0, 0, 0, 0};
#pragma unroll
  for (int step = 0; step < kKeySteps; ++step) {
    count_common_bits(c0_0, codes[0][step], codes_below[0][step], columns[0][step]);
    count_common_bits(c0_1, codes[0][step], codes_below[0][step], columns[1][step]);
    count_common_bits(c1_0, codes[1][step], codes_below[1][step], columns[0][step]);
    count_common_bits(c1_1, codes[1][step], codes_below[1][step], columns[1][step]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    score[half] = bias + 2 * (1 * c0_0[2 * half] + 2 * c0_0[2 * half + 1] + 4 * c0_1[2 * half] + -8 * c0_1[2 * half + 1] + 2 * c1_0[2 * half] + 4 * c1_0[2 * half + 1] + 8 * c1_1[2 * half] + -16 * c1_1[2 * half + 1]);
  }
}

}  // namespace adamas_cuda
