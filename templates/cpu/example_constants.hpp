// What the generator writes for the default Spec: constants of the specialization.
//
// Only for editors and other tools that read the templates as they are. In a translation unit
// the generator's own text stands in this place; a test holds the two together.
#pragma once

#include "templates/args.h"

namespace adamas_cpu {

// Formats of K and V, of the query and of the output
struct Float16;
struct BFloat16;
struct Float32;
struct Float8E4M3;
struct BlockInt8;
using Kv = Float16;
using Query = Float16;
using Out = Float16;

// Whether K and V have scales of the tensor or of their heads
inline constexpr bool kScaled = false;

// Shape
inline constexpr int kHeadDim = 128;
inline constexpr int kValueDim = 128;
inline constexpr int kGroup = 1;
inline constexpr int kQueryRows = 1;
inline constexpr int kBudget = 128;
inline constexpr int kSink = 0;
inline constexpr int kRecent = 1;
inline constexpr bool kKvHeadScope = false;
inline constexpr int kSelectionsPerKvHead = 1;
inline constexpr bool kLse = true;
inline constexpr bool kSoftCap = false;
inline constexpr bool kWindow = false;
inline constexpr bool kSinkLogits = false;

// Transform
inline constexpr int kHadamard = 128;
// y = x H / sqrt(kHadamard), kHadamard = kHadamardOrder * 2^kHadamardLog2
inline constexpr int kHadamardOrder = 1;
inline constexpr int kHadamardLog2 = 7;
inline constexpr float kHadamardNorm = 0x1.6a09e6p-4f;
// Rows of the matrix across: bit j of row r set = entry (r, j) is -1.
inline constexpr unsigned kHadamardRows[1] = {0x0};

// Codes and scores
inline constexpr int kBuckets = 4;
inline constexpr bool kDot = true;
inline constexpr int kQueryMax = 7;
inline constexpr int kScoreLimit = 2688;
inline constexpr int kKeyLimit = 5376;
using OrderKey = unsigned short;
static_assert(kKeyLimit == (kDot ? 2 : 1) * kScoreLimit);
static_assert(kScoreLimit == kHeadDim * (kBuckets - 1) * (kDot ? kQueryMax : 1));

// Layout of codes and of prepared queries
inline constexpr int kPageTokens = 16;
inline constexpr bool kCsr = false;
inline constexpr bool kPointers = false;
inline constexpr bool kSplitTables = false;
inline constexpr int kTileTokens = 16;
inline constexpr int kRowBytes = 32;
inline constexpr int kPreparedBytes = 2880;
static_assert(kPageTokens % kTileTokens == 0);

// Work items
inline constexpr int kSlotBlock = 64;
inline constexpr int kScanTile = 2048;
inline constexpr int kChunk = 128;
inline constexpr int kDenseChunk = 512;
static_assert(sizeof(adamas_abi::Args) == 488, "host and kernel disagree on Args");

}  // namespace adamas_cpu
