// The decode kernel's shared memory, and which block of a cluster owns what. A cluster, or a part of one
// where the row is short, answers one row and one K/V head: its blocks share out the tokens to scan, then the
// chunks of the lists to attend to.
#pragma once

#include "templates/cuda/cluster.cuh"
#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kDecodeWarps = kDecodeThreads / kWarp;
constexpr int kMostBlocks = 8;  ///< of a cluster

constexpr int kSelections = kSelectionsPerKvHead;
constexpr int kItems =
    kSelections * kChunksPerList;  ///< chunks of all lists, of which every block has a share

constexpr int kBins = 256;         ///< of a histogram of scores
constexpr int kTokensPerLane = 8;  ///< that a lane looks at together, when scores are read back

/// Once scores are made, each selection has warps of its own, and each of them a part of the block's slice.
constexpr int kListWarps = kDecodeWarps / kSelections > 0 ? kDecodeWarps / kSelections : 1;
constexpr int kListsAtOnce = kDecodeWarps / kListWarps;
constexpr int kSliceGrain = 64;  ///< tokens; a block's slice begins at a multiple

/// Score of a token in shared memory: 0 = not seen, else order key + 1; forced tokens have the largest.
constexpr int kForcedScore = kKeyForced + 1;

constexpr bool kNarrowScores = sizeof(Score) == 2;

/// A token that may be selected: in the upper bits by how much its score exceeds the bound, in the lower ones
/// which of the row's tokens it is. No two are equal, and the better of two is the larger: of equal scores
/// the later token's.
using Candidate = unsigned;
/// Candidates that a warp lists, in place of the rings once all warps have scanned.
constexpr int kRingWords = kDecodeWarps * kPieceBytes / 4;  ///< of the smallest rings
constexpr int kListedWords = kRingWords / (kSelections * kListWarps);
constexpr int kCandidates = kListedWords < 256 ? kListedWords : 256;
/// Candidates of a list that one warp searches; more are searched by histograms.
constexpr int kMostCandidates = kBudget <= 256 ? kMaximaWords : 0;
constexpr unsigned kTooMany = ~0u;  ///< in place of a count
/// They are counted by their excess; better ones than the last but one all in the last.
constexpr int kExcesses = 128;

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

/// 2^31 / blocks, rounded up: clusters of any size share out work without a division. Not from a table: the
/// first read of a constant takes longer.
__device__ __forceinline__ unsigned reciprocal_of(unsigned blocks) {
  unsigned reciprocal = 0x80000000u >> (31 - __clz(static_cast<int>(blocks)));
  if (blocks == 3) reciprocal = 0x2aaaaaabu;
  if (blocks == 5) reciprocal = 0x1999999au;
  if (blocks == 6) reciprocal = 0x15555556u;
  if (blocks == 7) reciprocal = 0x12492493u;
  return reciprocal;
}

/// A block and those that it works with: all of its cluster, or a part.
struct Cluster {
  unsigned rank, blocks, reciprocal;
  int capacity;  ///< tokens that a block's slice has room for

  /// Where a block of the part is in the whole cluster, for mail to it.
  __device__ __forceinline__ unsigned address_of(unsigned block) const {
    return cluster_rank() - rank + block;
  }

  /// `amount` / blocks, rounded up: what each block gets at most. Exact below 2^28.
  __device__ __forceinline__ int share(int amount) const {
    return static_cast<int>(__umulhi(2u * (static_cast<unsigned>(amount) + blocks - 1), reciprocal));
  }
};

/// The whole cluster.
__device__ __forceinline__ Cluster this_cluster(const Args& args) {
  const unsigned blocks = cluster_blocks();
  Cluster cluster = {cluster_rank(), blocks, reciprocal_of(blocks), 0};
  // As cuda_decode_grid in the generator has it.
  const int grains = static_cast<int>((args.max_tokens + kSliceGrain - 1) / kSliceGrain) + 1;
  cluster.capacity = cluster.share(grains) * kSliceGrain;
  return cluster;
}

/// The part of a cluster that answers a row which sees `visible` tokens: the smallest of those that the
/// launch allows with room for them.
__device__ __forceinline__ Cluster part_for(const Args& args, const Cluster& whole, int visible) {
  auto blocks = static_cast<unsigned>(args.smallest_part);
  const int grains = (visible + kSliceGrain - 1) / kSliceGrain + 1;
#pragma unroll 1
  while (blocks < whole.blocks && grains * kSliceGrain > static_cast<int>(blocks) * whole.capacity) {
    blocks *= 2;
  }
  // A cluster of 3 has parts of one block alone.
  if (blocks >= whole.blocks || whole.blocks % blocks != 0) return whole;
  return {whole.rank % blocks, blocks, reciprocal_of(blocks), whole.capacity};
}

/// How the blocks share out a row's positions: `each` from `first` on, which may be before the first position
/// that the row sees, as slices begin where the slot index is a multiple of the grain.
struct Shares {
  int first, tokens, each;
  int begin;  ///< of this block's slice, in tokens from `first` on

  /// Bits that tell the row's tokens apart.
  __device__ __forceinline__ unsigned token_bits() const { return 32 - __clz(tokens - 1); }
};

/// What a block knows of its row. In shared memory, as the scan may take all registers.
struct Kept {
  Places places;
  Row row;
  Cluster cluster;
  int kv_head;
};

/// What a row asks of its cluster.
struct Task {
  int selected;  ///< tokens in each list
  bool scans;    ///< whether they must be found; otherwise they are all that the row sees
};

__device__ __forceinline__ Task task_of(const Args& args, const Row& row, int row_index) {
  if (attends_to_all(args, row)) return {row.visible, false};
  const int budget = row_budget(args, row_index);
  return {min(budget, row.visible), budget < row.visible && budget > 0};
}

/// What candidates are selected: those of a greater excess, and those of this one but for the first few.
struct Threshold {
  unsigned excess;
  int skipped;
};

/// Its size is a multiple of a row of banks: where the rings lie askew to those, copies into them take
/// longer.
struct alignas(128) DecodeShared {
  alignas(16) unsigned excesses[kSelections][kExcesses];         ///< how many candidates of the row have each
  alignas(16) unsigned columns[kGroup][kColumns][kColumnWords];  ///< queries as columns of bits or bytes
  alignas(16) PassQueries queries[kSelections][kListPasses];
  alignas(
      16) float partials[kSelections * kListPasses * kListHeadsAtOnce][kChunksPerList][kSharedPartialFloats];
  /// Maxima of all warps; then, if they are not too many, the candidates of all blocks, by position, else the
  /// block's histogram before it is sent.
  alignas(16) unsigned maxima[kSelections][kMaximaWords];
  alignas(
      16) unsigned entries[kSelections][kMostCandidates > 0 ? kMostCandidates : 4];  ///< of the candidates
  /// Candidates that a block has sent, or kTooMany; 0 where there is no block.
  alignas(16) unsigned block_counts[kSelections][kMostBlocks];
  Args args;  ///< of the launch, for functions that are not inlined
  Kept kept;
  Shares shares;
  unsigned candidate_counts[kSelections][kListWarps];  ///< see candidates_of
  unsigned totals[kSelections];                        ///< of the row, or kTooMany
  Threshold thresholds[kSelections];
  Mailbox maxima_mail, candidates_mail, ready_mail, histograms_mail, list_mail, partials_mail;
  Search search[kSelections];
  unsigned list_counts[kSelections][kListWarps];  ///< see count_of_score
  int bias[kGroup];
  float scratch[kDecodeWarps][kRotateScratch];
};
static_assert(sizeof(DecodeShared) == kDecodeSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(128) unsigned char dynamic_shared[];

/// Tokens in chunk `item % kChunksPerList` of a list of `selected`.
__device__ __forceinline__ int tokens_of_item(int item, int selected) {
  return max(0, min(kChunk, selected - item % kChunksPerList * kChunk));
}

/// Block that attends to chunk `item` (selection * kChunksPerList + chunk).
__device__ __forceinline__ unsigned block_of_item(const Cluster& cluster, int item) {
  return static_cast<unsigned>(item) * cluster.blocks / static_cast<unsigned>(kItems);
}

/// First item of a block; that of block `blocks` is kItems.
__device__ __forceinline__ int first_item_of_block(const Cluster& cluster, unsigned block) {
  return cluster.share(static_cast<int>(block) * kItems);
}

/// After DecodeShared: slots of the tokens in this block's items, kChunk an item.
__device__ __forceinline__ unsigned* list_of_block() {
  return reinterpret_cast<unsigned*>(dynamic_shared + sizeof(DecodeShared));
}

/// After those: what blocks send each other about a selection, args.inbox_words. Candidates, each block to a
/// part of its own, or histograms.
__device__ __forceinline__ unsigned* inbox_of(const Args& args, int selection) {
  return list_of_block() + args.chunks * kChunk + selection * args.inbox_words;
}

/// Candidates of a selection that a block can send, and where in a receiver's inbox they begin.
__device__ __forceinline__ int inbox_part(const Args& args, const Cluster& cluster) {
  return cluster.share(args.inbox_words);
}

/// A block's histogram there.
__device__ __forceinline__ unsigned short* histogram_of(const Args& args, int selection, unsigned block) {
  return reinterpret_cast<unsigned short*>(inbox_of(args, selection)) + block * kBins;
}

/// After those: scores while tokens are selected, sums of tiles while they are attended to.
__device__ __forceinline__ unsigned char* scores_of_block(const Args& args) {
  return reinterpret_cast<unsigned char*>(inbox_of(args, kSelections));
}

/// Bytes between the scores of two selections: neighbours begin in other banks.
__device__ __forceinline__ int score_bytes(int capacity) {
  const int scores = capacity + capacity / kPiece;
  return (scores * static_cast<int>(sizeof(Score)) + 127) / 128 * 128 + 32;
}

/// After a selection's scores: the largest of each piece, so that a list is made without looking at most of
/// them. kForcedScore where a piece has tokens that are forced or not seen.
__device__ __forceinline__ Score* piece_maxima(unsigned char* scores, int capacity) {
  return reinterpret_cast<Score*>(scores) + capacity;
}
__device__ __forceinline__ const Score* piece_maxima(const unsigned char* scores, int capacity) {
  return reinterpret_cast<const Score*>(scores) + capacity;
}

/// After those: each warp's ring of codes, args.ring_stages pieces.
__device__ __forceinline__ unsigned char* rings_of_block(const Args& args, const Cluster& cluster) {
  const int scores = kSelections * score_bytes(cluster.capacity);
  const int tiles = args.chunks * kHeadsPerList * kTilesPerChunk * kSharedPartialFloats * 4;
  return scores_of_block(args) + (max(scores, tiles) + 127) / 128 * 128;
}

/// In place of the rings, once all warps have scanned: tokens of a part of the slice that reach the bound, in
/// order. More than kCandidates are not listed.
__device__ __forceinline__ Candidate* candidates_of(const Args& args, const Cluster& cluster, int selection,
                                                    int part) {
  return reinterpret_cast<Candidate*>(rings_of_block(args, cluster)) +
         (selection * kListWarps + part) * kCandidates;
}

/// Tokens that a block or a warp scans: positions first .. first + tokens - 1, scores from `offset` on.
struct Slice {
  int first, tokens, offset;
};

}  // namespace adamas_cuda
