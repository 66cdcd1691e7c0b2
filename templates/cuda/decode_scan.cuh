// Scan of the decode kernel: codes -> scores in shared memory, on binary tensor cores. A warp takes 16 tokens
// as rows and the bits of four query heads as columns; what its lanes count, score_rows of the generated part
// turns into scores.
#pragma once

#include "templates/cuda/binary_mma.cuh"
#include "templates/cuda/decode_layout.cuh"
#include "templates/cuda/query.cuh"

namespace adamas_cuda {

constexpr int kRowsPerGroup = 8;           ///< tokens of which a lane holds a word each time it loads
constexpr int kRounds = (kGroup + 3) / 4;  ///< of four query heads

// Codes come through a ring in shared memory, a ring a warp: pieces of kPiece tokens, plane by plane.
constexpr int kRowBytes = kWords * 4;
constexpr int kPlaneBytes = kPiece * kRowBytes;
constexpr int kCopyBytes = kRowBytes % 16 == 0 ? 16 : kRowBytes % 8 == 0 ? 8 : 4;  ///< never across tokens
constexpr int kCopiesOfPlane = kPlaneBytes / kCopyBytes;
constexpr int kCopiesOfLane = (kCopiesOfPlane + kWarp - 1) / kWarp;
static_assert(kPlanes * kPlaneBytes == kPieceBytes, "the generator and the template disagree about a piece");

/// Bit of an integer in a column. dot: two's complement planes; manhattan: columns 2t and 2t + 1 are
/// [code > t] and its opposite.
__device__ __forceinline__ unsigned column_bit(int integer, int column) {
  if constexpr (kDot) return column < kQueryPlanes ? static_cast<unsigned>(integer) >> column & 1u : 0u;
  return static_cast<unsigned>(integer > column / 2) ^ static_cast<unsigned>(column % 2);
}

/// Query heads -> columns and biases in shared memory, a warp a head.
/// @param x  query head `warp_index()` of the group, if there is one; used up
__device__ __forceinline__ void prepare_columns(const Args& args, int row_index, int kv_head,
                                                float (&x)[kWords], DecodeShared& shared) {
#pragma unroll 1
  for (int member = warp_index(); member < kGroup; member += kDecodeWarps) {
    int integers[kWords];
    if (member >= kDecodeWarps) load_query(args, row_index, kv_head * kGroup + member, x);
    query_integers(args, row_index, kv_head * kGroup + member, x, shared.scratch[warp_index()], integers);
    int sum = 0;
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      sum += integers[j];
    }
    sum = sum_over_warp(sum);
    if (lane_index() == 0) shared.bias[member] = kScoreLimit + 1 - (kDot ? kBuckets - 1 : 1) * sum;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      unsigned bits[kWords];
#pragma unroll
      for (int j = 0; j < kWords; ++j) {
        bits[j] = holds_element(j) ? column_bit(integers[j], column) : 0u;
      }
      const unsigned word = plane_words(bits, 0);
      if (lane_index() < kColumnWords) shared.columns[member][column][lane_index()] = word;
    }
  }
}

/// A lane's words of the columns of a round's query heads: column lane / 4 of each term.
struct RoundColumns {
  unsigned words[kTerms][kKeySteps];
  int bias;  ///< of this lane's query head, lane % 4 of the round; far below every score if there is none
};

__device__ __forceinline__ void load_columns(const DecodeShared& shared, int round, RoundColumns& columns) {
  const int member = round * 4 + lane_index() / 8, mine = round * 4 + lane_index() % 4;
#pragma unroll
  for (int term = 0; term < kTerms; ++term) {
#pragma unroll
    for (int step = 0; step < kKeySteps; ++step) {
      columns.words[term][step] =
          member < kGroup
              ? shared.columns[member][2 * term + lane_index() / 4 % 2][4 * step + lane_index() % 4]
              : 0u;
    }
  }
  columns.bias = mine < kGroup ? shared.bias[mine] : -(1 << 30);
}

/// Token of a piece that copy i of this lane belongs to; kPiece or more where it has no such copy.
__device__ __forceinline__ int token_of_copy(int i) {
  return (i * kWarp + lane_index()) * kCopyBytes / kRowBytes;
}

/// Keeps a value in registers where the compiler would rather compute it again, in a loop that has no time.
template <class T>
__device__ __forceinline__ void keep(T*& pointer) {
  asm volatile("" : "+l"(pointer));
}

/// Slot indexes from `index` on that a sequence has.
__device__ __forceinline__ int tokens_up_to(unsigned last, unsigned index) {
  return index > last ? 0 : static_cast<int>(min(last - index, 0x7ffffffeu)) + 1;
}

/// The codes of a warp's slice, copied to its ring a piece at a time. Where the row's table ends before the
/// row does, scores are of what lay in the ring before: such a row is reported, and its answer is of no use.
class CodeStream {
 public:
  /// @param seen  tokens that the row sees from the slice's first on; the table need not hold more
  __device__ __forceinline__ CodeStream(const Args& args, int kv_head, const Places& places,
                                        const Slice& slice, int seen, unsigned char* ring)
      : codes_(code_words(args, kv_head, {kPaged ? 0 : places.page, 0})),
        plane_words_(static_cast<int>(args.code_plane_stride / 4)),
        page_words_(static_cast<unsigned>(args.code_page_stride / 4)),
        table_(places.table),
        index_(places.start + static_cast<unsigned>(slice.first)),
        last_page_(places.last_page),
        tokens_(slice.tokens),
        seen_(min(min(seen, slice.tokens), tokens_up_to(places.last, index_))),
        ring_(ring),
        ring_bytes_(args.ring_stages * kPieceBytes) {
    keep(codes_);
    keep(table_);
    find_pages();
  }

  /// Begins to copy the next piece, or counts an empty one.
  __device__ __forceinline__ void begin_piece(unsigned& status) {
    if (begun_ < tokens_) {
#pragma unroll
      for (int i = 0; i < kCopiesOfLane; ++i) {
        copy(i, status);
      }
      begun_ += kPiece;
      filling_ = filling_ + kPieceBytes == ring_bytes_ ? 0 : filling_ + kPieceBytes;
      find_pages();
    }
    end_copies();
  }

  /// Waits for the oldest piece. It stays until one begins after the next such call.
  __device__ __forceinline__ const unsigned char* next_piece() {
    if (ring_bytes_ == 2 * kPieceBytes) {
      wait_for_copies<0>();
    } else if (ring_bytes_ == 3 * kPieceBytes) {
      wait_for_copies<1>();
    } else {
      wait_for_copies<2>();
    }
    __syncwarp();
    const unsigned char* const stage = ring_ + reading_;
    reading_ = reading_ + kPieceBytes == ring_bytes_ ? 0 : reading_ + kPieceBytes;
    return stage;
  }

 private:
  /// Looks up the pages of the piece after those that have begun, without waiting for them.
  __device__ __forceinline__ void find_pages() {
    if constexpr (!kPaged) return;
#pragma unroll
    for (int i = 0; i < kCopiesOfLane; ++i) {
      const int token = begun_ + token_of_copy(i);
      if (token < seen_) page_[i] = __ldg(table_ + (index_ + token) / kPageSize);
    }
  }

  __device__ __forceinline__ void copy(int i, unsigned& status) const {
    const int number = i * kWarp + lane_index(), token = begun_ + token_of_copy(i);
    if (token >= seen_ || (kCopiesOfPlane % kWarp != 0 && number >= kCopiesOfPlane)) return;
    const unsigned index = index_ + token;
    const unsigned* words = codes_ + token_of_index(index) * kWords + number * kCopyBytes % kRowBytes / 4;
    if constexpr (kPaged) {
      const int page = max(0, min(page_[i], last_page_));
      if (page != page_[i]) status |= adamas_abi::kBadTable;
      words += static_cast<unsigned long long>(static_cast<unsigned>(page)) * page_words_;
    }
    unsigned char* const to = ring_ + filling_ + number * kCopyBytes;
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      copy_async<kCopyBytes>(to + plane * kPlaneBytes, words + plane * plane_words_);
    }
  }

  const unsigned* codes_;  ///< of the K/V head in page 0, or in the sequence's row
  int plane_words_;
  unsigned page_words_;  ///< fits: pages have at most 1024 tokens
  const int* table_;
  unsigned index_;  ///< slot index of the slice's first token
  int last_page_;
  int tokens_, seen_;  ///< of the slice, in whole pieces; those that the row sees
  unsigned char* ring_;
  int ring_bytes_;
  int begun_ = 0;                  ///< tokens whose copies have begun
  int filling_ = 0, reading_ = 0;  ///< stages of the ring, in bytes
  int page_[kCopiesOfLane] = {};
};

/// A lane's words of 16 tokens: word lane % 4 (+ 4 step) of tokens lane / 4 and lane / 4 + 8.
__device__ __forceinline__ void load_rows(const unsigned char* stage, int token,
                                          unsigned (&codes)[kPlanes][kKeySteps]) {
  const auto* row = reinterpret_cast<const unsigned*>(stage) + (token + lane_index() / 4) * kWords;
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
#pragma unroll
    for (int step = 0; step < kKeySteps; ++step) {
      const int word = step * 4 + lane_index() % 4;
      const bool wanted = (step + 1) * 4 <= kWords || word < kWords;
      codes[plane][step] = wanted ? row[plane * (kPlaneBytes / 4) + word] : 0u;
    }
  }
}

/// Corrects a piece's scores where tokens are not seen or forced, which the codes do not tell.
/// @param first  position of the piece's first token, at `token` of the block's slice
__device__ __forceinline__ void adjust_piece(const Row& row, int first, int token, unsigned char* scores,
                                             int stride) {
  __syncwarp();
#pragma unroll 1
  for (int i = lane_index(); i < kPiece; i += kWarp) {
    const int position = first + i;
    const bool seen = position >= row.first && position <= row.own;
    const bool forced = seen && (position < kSink || position > row.own - kRecent);
    if (seen && !forced) continue;
#pragma unroll
    for (int selection = 0; selection < kSelections; ++selection) {
      reinterpret_cast<Score*>(scores + selection * stride)[token + i] = forced ? kForcedScore : 0;
    }
  }
}

/// Words of maxima that a warp sends for a selection: all 8, or fewer where the cluster has many warps. A
/// power of two, as rows share them out.
static_assert((kDecodeWarps & (kDecodeWarps - 1)) == 0 && (kMaximaWords & (kMaximaWords - 1)) == 0,
              "warps and words of maxima are powers of two");
__device__ __forceinline__ int maxima_words(const Cluster& cluster) {
  // Of as many blocks as the next power of two.
  const int share = (kMaximaWords / kDecodeWarps) >> (32 - __clz(static_cast<int>(cluster.blocks) - 1));
  return max(1, min(kRowsPerGroup, share));
}

/// Sends a warp's maxima to every block.
template <int kCount>
__device__ __forceinline__ void send_maxima(const Cluster& cluster, const Maximum (&maxima)[kCount],
                                            DecodeShared& shared) {
  const int words = maxima_words(cluster);
  const int row = lane_index() / 4, place = row % words;
#pragma unroll
  for (int round = 0; round < kCount; ++round) {
    Maximum maximum = maxima[round];
#pragma unroll 1
    for (int rows = kRowsPerGroup / 2; rows >= words; rows /= 2) {
      maximum = larger(maximum, __shfl_xor_sync(kAllLanes, maximum, rows * 4));
    }
    const int selection = round * 4 + lane_index() % 4;
    if (selection >= kSelections) continue;
    unsigned* to =
        &shared.maxima[selection]
                      [(static_cast<int>(cluster.rank) * kDecodeWarps + warp_index()) * words + place];
    // Rows that agree on a word share out the blocks.
    for (unsigned block = row / words; block < cluster.blocks; block += kRowsPerGroup / words) {
      send(to, block, maximum, shared.maxima_mail);
    }
  }
}

/// Scores a warp's slice, and sends the largest scores on the way.
__device__ __forceinline__ void scan_slice(const Cluster& cluster, const Row& row, const Slice& slice,
                                           DecodeShared& shared, unsigned char* scores, int stride,
                                           CodeStream& stream, unsigned& status) {
  RoundColumns columns[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    load_columns(shared, round, columns[round]);
  }
  constexpr int kMaxima = kSelections == 1 ? 1 : kRounds;
  Maximum maxima[kMaxima] = {};
  // A bound of the threshold needs no more than most scores: it is found while the rest are made.
  const int send_after = ((slice.tokens / kPiece * 3 + 3) / 4 - 1) * kPiece;
  if (slice.tokens == 0) send_maxima(cluster, maxima, shared);
#pragma unroll 1
  for (int done = 0; done < slice.tokens; done += kPiece) {
    const unsigned char* const stage = stream.next_piece();
    // All lanes are done with the piece before, whose stage is filled again.
    stream.begin_piece(status);
    Maximum largest[kMaxima] = {};
#pragma unroll
    for (int pair = 0; pair < kPiece; pair += 2 * kRowsPerGroup) {
      unsigned codes[2][kPlanes][kKeySteps];
      load_rows(stage, pair, codes[0]);
      load_rows(stage, pair + kRowsPerGroup, codes[1]);
      int best[2] = {0, 0};
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        int score[2];
        score_rows(codes[0], codes[1], columns[round].words, columns[round].bias, score);
        if constexpr (kSelections == 1 && kGroup > 1) {
          best[0] = max(best[0], score[0]);
          best[1] = max(best[1], score[1]);
          if (round + 1 < kRounds) continue;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            best[half] = max(best[half], __shfl_xor_sync(kAllLanes, best[half], 1));
            best[half] = max(best[half], __shfl_xor_sync(kAllLanes, best[half], 2));
            score[half] = best[half];
          }
        }
        const int selection = kSelections == 1 ? lane_index() % 4 : round * 4 + lane_index() % 4;
        if (selection < kSelections) {
          Score* const to = reinterpret_cast<Score*>(scores + selection * stride) + slice.offset + done +
                            pair + lane_index() / 4;
          to[0] = static_cast<Score>(score[0]);
          to[kRowsPerGroup] = static_cast<Score>(score[1]);
        }
        const unsigned even = static_cast<unsigned>(score[0]), odd = static_cast<unsigned>(score[1]);
        Maximum& maximum = largest[kSelections == 1 ? 0 : round];
        maximum = larger(maximum, kNarrowScores ? even | odd << 16 : max(even, odd));
      }
    }
    const int begin = slice.first + done;
    if (begin >= max(row.first, kSink) && begin + kPiece - 1 <= row.own - kRecent) {
#pragma unroll
      for (int round = 0; round < kMaxima; ++round) {
        maxima[round] = larger(maxima[round], largest[round]);
      }
    } else {  // a bound may do without these, and must do without tokens that are not seen
      adjust_piece(row, begin, slice.offset + done, scores, stride);
    }
    if (done == send_after) send_maxima(cluster, maxima, shared);
  }
}

}  // namespace adamas_cuda
