// The decode kernel's shared memory, and which block of a cluster owns what. A cluster answers one row and
// one K/V head: its blocks share out the tokens to scan, then the chunks of the lists to attend to.
#pragma once

#include "templates/cuda/cluster.cuh"
#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kDecodeWarps = kDecodeThreads / kWarp;
constexpr int kMostBlocks = 8;  ///< of a cluster

constexpr int kSelections = kSelectionsPerKvHead;
constexpr int kChunksPerList = (kBudget + kChunk - 1) / kChunk;
constexpr int kItems =
    kSelections * kChunksPerList;  ///< chunks of all lists, of which every block has a share

constexpr int kBins = 256;         ///< of a histogram of scores
constexpr int kTokensPerLane = 8;  ///< that a lane looks at together, when scores are read back
constexpr int kCandidates = 256;   ///< tokens that may be selected, of a warp that lists them

/// Once scores are made, each selection has warps of its own, and each of them a part of the block's slice.
constexpr int kListWarps = kDecodeWarps / kSelections > 0 ? kDecodeWarps / kSelections : 1;
constexpr int kListsAtOnce = kDecodeWarps / kListWarps;
constexpr int kSliceGrain = 64;  ///< tokens; a block's slice begins at a multiple

/// Score of a token in shared memory: 0 = not seen, else order key + 1; forced tokens have the largest.
constexpr int kForcedScore = kKeyForced + 1;

constexpr bool kNarrowScores = sizeof(Score) == 2;

/// Largest scores that a lane has seen: two of 16 bits, of even and of odd groups, or one of 32.
using Maximum = unsigned;

__device__ __forceinline__ Maximum larger(Maximum a, Maximum b) {
  if constexpr (kNarrowScores) return __vmaxu2(a, b);
  return max(a, b);
}

/// Search for the score of the budget's last token: what is known so far.
struct Search {
  unsigned lowest, top;   ///< it lies in lowest .. top - 1
  unsigned shift;         ///< log2 of the width of the next histogram's bins
  unsigned above;         ///< tokens of the row at or above top
  unsigned above_before;  ///< those of them in the blocks before this one
  // Once lowest + 1 == top:
  unsigned skipped;  ///< of this block's tokens with score `lowest`, so many first ones are not selected
  unsigned first;    ///< place in the list of this block's first selected token
};

struct alignas(16) DecodeShared {
  alignas(16) unsigned short inbox[kSelections][kMostBlocks][kBins];  ///< every block's histogram
  alignas(16) unsigned columns[kGroup][kColumns][kColumnWords];       ///< queries as binary columns
  alignas(16) PassQueries queries[kSelections][kListPasses];
  alignas(16) float partials[kSelections * kListPasses * kListHeadsAtOnce][kChunksPerList][kPartialFloats];
  alignas(16) unsigned maxima[kSelections][kMaximaWords];
  alignas(16) unsigned bins[kSelections][kBins];
  unsigned candidate_counts[kSelections][kListWarps];  ///< see candidates_of
  Mailbox maxima_mail, inbox_mail, list_mail, partials_mail;
  Search search[kSelections];
  unsigned list_counts[kSelections][kListWarps];  ///< see count_of_score
  int bias[kGroup];
  float scratch[kDecodeWarps][kRotateScratch];
};
static_assert(sizeof(DecodeShared) == kDecodeSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// 2^31 / blocks, rounded up: clusters of any size share out work without a division, which takes long.
__device__ __constant__ const unsigned kReciprocals[kMostBlocks + 1] = {
    0,           0x80000000u, 0x40000000u, 0x2aaaaaabu, 0x20000000u,
    0x1999999au, 0x15555556u, 0x12492493u, 0x10000000u};

/// A block and its cluster.
struct Cluster {
  unsigned rank, blocks, reciprocal;

  /// `amount` / blocks, rounded up: what each block gets at most. Exact below 2^28.
  __device__ __forceinline__ int share(int amount) const {
    return static_cast<int>(__umulhi(2u * (static_cast<unsigned>(amount) + blocks - 1), reciprocal));
  }
};

__device__ __forceinline__ Cluster this_cluster() {
  const unsigned blocks = cluster_blocks();
  return {cluster_rank(), blocks, kReciprocals[blocks]};
}

/// Block that attends to chunk `item` (selection * kChunksPerList + chunk).
__device__ __forceinline__ unsigned block_of_item(const Cluster& cluster, int item) {
  return static_cast<unsigned>(item) * cluster.blocks / static_cast<unsigned>(kItems);
}

/// First item of a block; that of block `blocks` is kItems.
__device__ __forceinline__ int first_item_of_block(const Cluster& cluster, unsigned block) {
  return cluster.share(static_cast<int>(block) * kItems);
}

__device__ __forceinline__ int most_items_of_block(const Cluster& cluster) { return cluster.share(kItems); }

/// After DecodeShared: slots of the tokens in this block's items, kChunk an item.
__device__ __forceinline__ unsigned* list_of_block() {
  return reinterpret_cast<unsigned*>(dynamic_shared + sizeof(DecodeShared));
}

/// After those: scores while tokens are selected, strands while they are attended to.
__device__ __forceinline__ unsigned char* scores_of_block(const Cluster& cluster) {
  return dynamic_shared + sizeof(DecodeShared) + most_items_of_block(cluster) * kChunk * sizeof(unsigned);
}

/// Tokens that a slice has room for; see DecodeSize in the generator.
__device__ __forceinline__ int slice_capacity(const Args& args, const Cluster& cluster) {
  const int grains = static_cast<int>((args.max_tokens + kSliceGrain - 1) / kSliceGrain) + 1;
  return cluster.share(grains) * kSliceGrain;
}

/// Bytes between the scores of two selections: neighbours begin in other banks.
__device__ __forceinline__ int score_bytes(int capacity) {
  return capacity * static_cast<int>(sizeof(Score)) + 32;
}

/// After those: each warp's ring of codes, args.ring_stages pieces.
__device__ __forceinline__ unsigned char* rings_of_block(const Args& args, const Cluster& cluster) {
  const int scores = kSelections * score_bytes(slice_capacity(args, cluster));
  const int strands = most_items_of_block(cluster) * kHeadsPerList * kStrands * kPartialFloats * 4;
  return scores_of_block(cluster) + (max(scores, strands) + 15) / 16 * 16;
}

/// In place of the rings, once all warps have scanned: tokens of a part of the slice that reach the bound, in
/// order. More than kCandidates are not listed.
__device__ __forceinline__ unsigned short* candidates_of(const Args& args, const Cluster& cluster,
                                                         int selection, int part) {
  return reinterpret_cast<unsigned short*>(rings_of_block(args, cluster)) +
         (selection * kListWarps + part) * kCandidates;
}
static_assert(kSelections * kListWarps * kCandidates * 2 <= kDecodeWarps * 2 * kPieceBytes,
              "candidates outgrow the rings");

/// Tokens that a block or a warp scans: positions first .. first + tokens - 1, scores from `offset` on.
struct Slice {
  int first, tokens, offset;
};

}  // namespace adamas_cuda
