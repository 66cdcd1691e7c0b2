// Scan of the decode kernel: codes -> scores in shared memory, on binary tensor cores. A warp takes 16 tokens
// as rows and the bits of four query heads as columns; what its lanes count, score_rows of the generated part
// turns into scores.
#pragma once

#include "templates/cuda/binary_mma.cuh"
#include "templates/cuda/decode_layout.cuh"
#include "templates/cuda/query.cuh"

namespace adamas_cuda {

constexpr int kRowsPerGroup = 8;  ///< tokens that a warp loads together, a word a lane
constexpr int kRounds = (kGroup + 3) / 4;  ///< of four query heads
constexpr int kCodeRegisters = kPlanes * kKeySteps;
/// Groups that are loaded before the first is scored: about 16 words a lane are on their way.
constexpr int kGroupsAtOnce = kCodeRegisters <= 2 ? 8 : kCodeRegisters <= 4 ? 4 : 2;
constexpr int kPiece = kGroupsAtOnce * kRowsPerGroup;  ///< tokens

/// Bit of an integer in a column. dot: two's complement planes; manhattan: columns 2t and 2t + 1 are
/// [code > t] and its opposite.
__device__ __forceinline__ unsigned column_bit(int integer, int column) {
  if constexpr (kDot) return column < kQueryPlanes ? static_cast<unsigned>(integer) >> column & 1u : 0u;
  return static_cast<unsigned>(integer > column / 2) ^ static_cast<unsigned>(column % 2);
}

/// Query heads -> columns and biases in shared memory, a warp a head.
__device__ __forceinline__ void prepare_columns(const Args& args, int row_index, int kv_head,
                                                DecodeShared& shared) {
#pragma unroll 1
  for (int member = warp_index(); member < kGroup; member += kDecodeWarps) {
    int integers[kWords];
    query_integers(args, row_index, kv_head * kGroup + member, shared.scratch[warp_index()], integers);
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

/// Codes of a piece: word lane % 4 (+ 4 step) of token 8 group + lane / 4.
struct PieceCodes {
  unsigned words[kGroupsAtOnce][kPlanes][kKeySteps];
};

/// Position of this lane's token of a group, moved into what the row sees.
__device__ __forceinline__ int position_of_group(const Row& row, int first, int group) {
  const int position = first + group * kRowsPerGroup + lane_index() / 4;
  return min(max(position, row.first), row.own);
}

/// Slot indices and pages of a piece's tokens, one piece ahead of the codes.
struct PiecePlaces {
  unsigned index[kGroupsAtOnce];
  int page[kGroupsAtOnce];
};

__device__ __forceinline__ void find_piece(const Places& places, const Row& row, int first,
                                           PiecePlaces& piece, unsigned& status) {
#pragma unroll
  for (int group = 0; group < kGroupsAtOnce; ++group) {
    piece.index[group] = slot_index(places, position_of_group(row, first, group), status);
    piece.page[group] = page_of_index(places, piece.index[group], status);
  }
}

__device__ __forceinline__ void load_piece(const Args& args, int kv_head, const PiecePlaces& piece,
                                           PieceCodes& codes) {
#pragma unroll
  for (int group = 0; group < kGroupsAtOnce; ++group) {
    const unsigned* first =
        code_words(args, kv_head, {piece.page[group], token_of_index(piece.index[group])}) + lane_index() % 4;
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
#pragma unroll
      for (int step = 0; step < kKeySteps; ++step) {
        const bool whole = (step + 1) * 4 <= kWords;
        codes.words[group][plane][step] =
            whole || step * 4 + lane_index() % 4 < kWords ? __ldcs(plane_of(args, first, plane) + step * 4) : 0u;
      }
    }
  }
}

/// A score where the token is not seen or forced, which the order key does not tell.
__device__ __forceinline__ int adjusted_score(const Row& row, int position, int score) {
  if (position < row.first || position > row.own) return 0;
  return position < kSink || position > row.own - kRecent ? kForcedScore : score;
}

/// Words of maxima that a warp sends for a selection: all 8, or fewer where the cluster has many warps.
__device__ __forceinline__ int maxima_words(const Cluster& cluster) {
  const int share = (kMaximaWords / kDecodeWarps) >> cluster.log2_blocks;
  return max(1, min(kRowsPerGroup, share));
}

/// Sends a warp's maxima to every block.
template <int kCount>
__device__ __forceinline__ void send_maxima(const Cluster& cluster, const Maximum (&maxima)[kCount],
                                            DecodeShared& shared) {
  const int words = maxima_words(cluster);
  const int row = lane_index() / 4, place = row % words;
#pragma unroll
  for (int round = 0; round < (kSelections == 1 ? 1 : kCount); ++round) {
    Maximum maximum = maxima[round];
#pragma unroll 1
    for (int rows = kRowsPerGroup / 2; rows >= words; rows /= 2) {
      maximum = larger(maximum, __shfl_xor_sync(kAllLanes, maximum, rows * 4));
    }
    const int selection = round * 4 + lane_index() % 4;
    if (selection >= kSelections) continue;
    unsigned* to =
        &shared.maxima[selection][(static_cast<int>(cluster.rank) * kDecodeWarps + warp_index()) * words + place];
    // Rows that agree on a word share out the blocks.
    for (unsigned block = row / words; block < cluster.blocks; block += kRowsPerGroup / words) {
      send(to, block, maximum, shared.maxima_mail);
    }
  }
}

/// Scores a warp's slice, and sends the largest scores on the way.
__device__ __forceinline__ void scan_slice(const Args& args, const Cluster& cluster, const Row& row, int kv_head,
                                           const Slice& slice, DecodeShared& shared, unsigned char* scores,
                                           int stride, const PieceCodes& first_codes,
                                           const PiecePlaces& second_places, const Places& places,
                                           unsigned& status) {
  RoundColumns columns[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    load_columns(shared, round, columns[round]);
  }
  Maximum maxima[kRounds] = {};
  PieceCodes next = first_codes;
  PiecePlaces places_ahead = second_places;
  // A bound of the threshold needs no more than most scores: it is found while the rest are made.
  const int send_after = ((slice.tokens / kPiece * 3 + 3) / 4 - 1) * kPiece;
  if (slice.tokens == 0) send_maxima(cluster, maxima, shared);
#pragma unroll 1
  for (int done = 0; done < slice.tokens; done += kPiece) {
    const PieceCodes codes = next;
    if (done + kPiece < slice.tokens) {
      load_piece(args, kv_head, places_ahead, next);
      if (done + 2 * kPiece < slice.tokens) {
        find_piece(places, row, slice.first + done + 2 * kPiece, places_ahead, status);
      }
    }
    const int begin = slice.first + done;
    const bool ordinary =
        begin >= max(row.first, kSink) && begin + kPiece - 1 <= row.own - kRecent;  // the same in all lanes
#pragma unroll
    for (int pair = 0; pair < kGroupsAtOnce; pair += 2) {
      int best[2] = {0, 0};
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        int score[2];
        score_rows(codes.words[pair], codes.words[pair + 1], columns[round].words, columns[round].bias, score);
        if constexpr (kSelections == 1) {
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
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int token = done + (pair + half) * kRowsPerGroup + lane_index() / 4;
          if (!ordinary) score[half] = adjusted_score(row, slice.first + token, score[half]);
          if (selection < kSelections) {
            reinterpret_cast<Score*>(scores + selection * stride)[slice.offset + token] =
                static_cast<Score>(score[half]);
          }
        }
        const unsigned even = static_cast<unsigned>(score[0]), odd = static_cast<unsigned>(score[1]);
        Maximum& maximum = maxima[kSelections == 1 ? 0 : round];
        maximum = larger(maximum, kNarrowScores ? even | odd << 16 : max(even, odd));
      }
    }
    if (done == send_after) send_maxima(cluster, maxima, shared);
  }
}

}  // namespace adamas_cuda
