// Scan of the decode kernel: codes -> scores in shared memory, on tensor cores. A warp takes 16 tokens as
// rows and four query heads as columns, bit by bit, or byte by byte where bits are emulated (kByteColumns);
// what its lanes count, score_rows of the generated part turns into scores.
#pragma once

#include "templates/cuda/binary_mma.cuh"
#include "templates/cuda/decode_codes.cuh"
#include "templates/cuda/query.cuh"

namespace adamas_cuda {

constexpr int kRounds = (kGroup + 3) / 4;                     ///< of four query heads
constexpr bool kSharedList = kSelections == 1 && kGroup > 1;  ///< a token's score is the best of all heads'

/// Bit of an integer in a column. dot: two's complement planes; manhattan: columns 2t and 2t + 1 are
/// [code > t] and its opposite.
__device__ __forceinline__ unsigned column_bit(int integer, int column) {
  if constexpr (kDot) return column < kQueryPlanes ? static_cast<unsigned>(integer) >> column & 1u : 0u;
  return static_cast<unsigned>(integer > column / 2) ^ static_cast<unsigned>(column % 2);
}

/// Byte of an integer in a column. manhattan: column t counts a key's [code > t] for [integer > t] or against
/// it.
__device__ __forceinline__ int column_byte(int integer, int column) {
  if constexpr (kDot) return integer;
  return integer > column ? 1 : -1;
}

/// Column `column` of bytes of a query head. By a warp.
__device__ __forceinline__ void store_bytes(const int (&integers)[kWords], int column,
                                            unsigned (&to)[kColumnWords]) {
  auto* const bytes = reinterpret_cast<signed char*>(to);
#pragma unroll
  for (int j = 0; j < 4 * kKeySteps; ++j) {  // in the order of spread, and nothing past the end
    const int byte = j < kWords && holds_element(j) ? column_byte(integers[min(j, kWords - 1)], column) : 0;
    bytes[j * kWarp + lane_index() % 8 * 4 + lane_index() / 8] = static_cast<signed char>(byte);
  }
}

/// Query heads -> columns and biases in shared memory, a warp a head.
/// @param first  query head `warp_index()` of the group, if there is one
__device__ __forceinline__ void prepare_columns(const Args& args, int row_index, int kv_head,
                                                const RawQuery& first, DecodeShared& shared) {
#pragma unroll 1
  for (int member = warp_index(); member < kGroup; member += kDecodeWarps) {
    int integers[kWords];
    float x[kWords];
    RawQuery raw = first;
    if (member >= kDecodeWarps) load_query(args, row_index, kv_head * kGroup + member, raw);
    widen_query(raw, x);
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
      if constexpr (kByteColumns) {
        store_bytes(integers, column, shared.columns[member][column]);
        continue;
      }
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

/// Tokens that share a unit have columns of their own, with bits where their words are. Columns of bytes take
/// too many registers for that: there the tokens' words are cleared.
constexpr int kPlacesOfColumns = kByteColumns ? 1 : kTokensPerUnit;

/// A lane's words of the columns of a round's query heads: column lane / 4 of each term. Of bytes a head has
/// every second column.
struct RoundColumns {
  unsigned words[kPlacesOfColumns][kTerms][kKeySteps * kColumnRegisters];
  int bias;  ///< of this lane's query head, lane % 4 of the round; far below every score if there is none
};

__device__ __forceinline__ void load_columns(const DecodeShared& shared, int round, RoundColumns& columns) {
  const int member = round * 4 + lane_index() / 8, mine = round * 4 + lane_index() % 4;
#pragma unroll
  for (int place = 0; place < kPlacesOfColumns; ++place) {
    int first = kTokensPerUnit > 1 ? lane_index() % 4 - place * kWords : lane_index() % 4;
    bool has_word = kTokensPerUnit == 1 || (first >= 0 && first < kWords);
    if constexpr (kByteColumns) {
      if (kTokensPerUnit > 1) first %= kWords;
      has_word = lane_index() / 4 % 2 == 0;
    }
#pragma unroll
    for (int term = 0; term < kTerms; ++term) {
      const int column = kByteColumns ? term : 2 * term + lane_index() / 4 % 2;
#pragma unroll
      for (int i = 0; i < kKeySteps * kColumnRegisters; ++i) {
        const int word = (4 * (i / kColumnRegisters) + first) * kColumnRegisters + i % kColumnRegisters;
        columns.words[place][term][i] =
            member < kGroup && has_word ? shared.columns[member][column][word] : 0u;
      }
    }
  }
  columns.bias = mine < kGroup ? shared.bias[mine] : -(1 << 30);
}

/// Scores of a lane's tokens in one selection, two to a word where they have 16 bits.
constexpr int kScoreWords = kLaneTokens * static_cast<int>(sizeof(Score)) / 4;
struct LaneScores {
  unsigned words[kScoreWords];
};

/// Scores of the lane's tokens for query head lane % 4 of a round. Of no meaning where there is no such head.
__device__ __forceinline__ LaneScores score_piece(const PieceWords& piece, const RoundColumns& columns) {
  unsigned scores[kLaneTokens];
#pragma unroll
  for (int pair = 0; pair < kLaneTokens / 2; ++pair) {
    constexpr int kUnit = kTokensPerUnit;  // both tokens of a pair lie in the same place of their units
    const int token = pair / kUnit * 2 * kUnit + pair % kUnit;
    unsigned codes[kPlanes][kKeySteps], codes_below[kPlanes][kKeySteps];
    words_of_token(piece, token, codes);
    words_of_token(piece, token + kUnit, codes_below);
    if (kByteColumns && kUnit > 1 && lane_index() % 4 / kWords != pair % kUnit) {
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        codes[plane][0] = codes_below[plane][0] = 0;
      }
    }
    int score[2];
    score_rows(codes, codes_below, columns.words[pair % kUnit % kPlacesOfColumns], columns.bias, score);
    if constexpr (kSharedList && kGroup % 4 != 0) {  // a head that does not exist is never the best
      score[0] = max(score[0], 0), score[1] = max(score[1], 0);
    }
    scores[token] = static_cast<unsigned>(score[0]), scores[token + kUnit] = static_cast<unsigned>(score[1]);
  }
  LaneScores lane;
#pragma unroll
  for (int word = 0; word < kScoreWords; ++word) {
    lane.words[word] = kNarrowScores
                           ? scores[2 * word % kLaneTokens] | scores[(2 * word + 1) % kLaneTokens] << 16
                           : scores[word % kLaneTokens];
  }
  return lane;
}

/// Stores them: kLaneTokens neighbours.
__device__ __forceinline__ void store_scores(unsigned char* to, const LaneScores& lane) {
  if constexpr (kScoreWords % 4 == 0) {
#pragma unroll
    for (int word = 0; word < kScoreWords; word += 4) {
      *reinterpret_cast<uint4*>(to + 4 * word) = {lane.words[word], lane.words[word + 1],
                                                  lane.words[word + 2], lane.words[word + 3]};
    }
  } else if constexpr (kScoreWords % 2 == 0) {
    *reinterpret_cast<uint2*>(to) = {lane.words[0], lane.words[1]};
  } else {
    *reinterpret_cast<unsigned*>(to) = lane.words[0];
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

/// Words of maxima that a warp sends for a selection: all 8 several times where few warps scan a row, each
/// time of other tokens; once, or fewer of them, where the cluster has many warps. The more there are, the
/// closer is the bound. A power of two, as rows share them out.
constexpr int kMostSendings = 4;
static_assert((kDecodeWarps & (kDecodeWarps - 1)) == 0 && (kMaximaWords & (kMaximaWords - 1)) == 0,
              "warps and words of maxima are powers of two");
__device__ __forceinline__ int maxima_words(const Cluster& cluster) {
  // Of as many blocks as the next power of two.
  const int share = (kMaximaWords / kDecodeWarps) >> (32 - __clz(static_cast<int>(cluster.blocks) - 1));
  return max(1, min(kMostSendings * kLaneRows, share));
}

/// Log2 of how many times a warp sends them.
__device__ __forceinline__ int maxima_sendings(const Cluster& cluster) {
  return max(0, 31 - __clz(maxima_words(cluster) / kLaneRows));
}

/// Sends a warp's maxima to every block, for the `sending`-th time.
template <int kCount>
__device__ __forceinline__ void send_maxima(const Cluster& cluster, const Maximum (&maxima)[kCount],
                                            int sending, DecodeShared& shared) {
  const int all_words = maxima_words(cluster), words = min(all_words, kLaneRows);
  const int row = lane_index() / 4, place = row % words;
#pragma unroll
  for (int round = 0; round < kCount; ++round) {
    Maximum maximum = maxima[round];
#pragma unroll 1
    for (int rows = kLaneRows / 2; rows >= words; rows /= 2) {
      maximum = larger(maximum, __shfl_xor_sync(kAllLanes, maximum, rows * 4));
    }
    const int selection = round * 4 + lane_index() % 4;
    if (selection >= kSelections) continue;
    unsigned* to =
        &shared.maxima[selection][(static_cast<int>(cluster.rank) * kDecodeWarps + warp_index()) * all_words +
                                  sending * words + place];
    // Rows that agree on a word share out the blocks.
    for (unsigned block = row / words; block < cluster.blocks; block += kLaneRows / words) {
      send(to, cluster.address_of(block), maximum, shared.maxima_mail);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void clear(Maximum (&maxima)[kCount]) {
#pragma unroll
  for (Maximum& maximum : maxima) {
    maximum = 0;
  }
}

/// The largest score that a maximum tells of.
__device__ __forceinline__ unsigned largest_of(Maximum maximum) {
  if constexpr (kNarrowScores) return max(maximum & 0xffffu, maximum >> 16);
  return maximum;
}

/// Where the last piece begins whose maxima are sent the `sending`-th of 2^sendings times. A bound of the
/// threshold needs no more than most scores: it is found while the rest are made.
__device__ __forceinline__ int last_before(const Slice& slice, int sendings, int sending) {
  const int pieces = slice.tokens / kPiece, bounding = max((3 * pieces + 3) / 4, pieces - 2);
  return ((bounding * (sending + 1) >> sendings) - 1) * kPiece;
}

/// Scores a warp's slice, and sends the largest scores on the way.
__device__ __forceinline__ void scan_slice(const Cluster& cluster, const Row& row, const Slice& slice,
                                           DecodeShared& shared, unsigned char* scores, int capacity,
                                           CodeStream& stream, unsigned& status) {
  const int stride = score_bytes(capacity);
  // Of several rounds, each loads its own anew: they would take too many registers.
  RoundColumns columns;
  if (kRounds == 1) load_columns(shared, 0, columns);
  const MatrixRows rows = matrix_rows();
  constexpr int kMaxima = kSelections == 1 ? 1 : kRounds;
  Maximum maxima[kMaxima] = {};
  const int sendings = maxima_sendings(cluster);
  int sent = 0;
#pragma unroll 1
  for (int done = 0; done < slice.tokens; done += kPiece) {
    PieceWords piece;
    load_piece(stream.next_piece(), rows, piece);
    __syncwarp();
    stream.begin_piece(status);
    const int begin = slice.first + done, token = slice.offset + done;
    // A bound may do without other pieces, and must do without tokens that are not seen.
    const bool plain = begin >= max(row.first, kSink) && begin + kPiece - 1 <= row.own - kRecent;
    LaneScores best = {};
#pragma unroll kSharedList ? 1 : kRounds
    for (int round = 0; round < kRounds; ++round) {
      if (kRounds > 1) load_columns(shared, round, columns);
      if constexpr (kByteColumns && kSharedList && kRounds > 1) {
        // Made of the codes anew: kept from round to round, their bytes would take too many registers.
#pragma unroll
        for (unsigned& word : piece.words) {
          asm volatile("" : "+r"(word));
        }
      }
      LaneScores lane = score_piece(piece, columns);
      if constexpr (kSharedList) {
#pragma unroll
        for (int word = 0; word < kScoreWords; ++word) {
          best.words[word] = larger(best.words[word], lane.words[word]);
        }
        if (round + 1 < kRounds) continue;
#pragma unroll
        for (int word = 0; word < kScoreWords; ++word) {
          unsigned both = best.words[word];
          both = larger(both, __shfl_xor_sync(kAllLanes, both, 1));
          lane.words[word] = larger(both, __shfl_xor_sync(kAllLanes, both, 2));
        }
      }
      const int selection = (kSelections == 1 ? 0 : round * 4) + lane_index() % 4;
      const bool stores = selection < kSelections;
      unsigned char* const list = scores + selection * stride;
      if (stores) {
        store_scores(list + (token + lane_index() / 4 * kLaneTokens) * sizeof(Score), lane);
      }
      Maximum maximum = lane.words[0];
#pragma unroll
      for (int word = 1; word < kScoreWords; ++word) {
        maximum = larger(maximum, lane.words[word]);
      }
      Maximum& so_far = maxima[kSelections == 1 ? 0 : round];
      if (plain) so_far = larger(so_far, maximum);
      unsigned largest = largest_of(maximum);
#pragma unroll
      for (int distance = 4; distance < kWarp; distance *= 2) {
        largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
      }
      if (stores && lane_index() < 4) {
        piece_maxima(list, capacity)[token / kPiece] = static_cast<Score>(plain ? largest : kForcedScore);
      }
    }
    if (!plain) adjust_piece(row, begin, token, scores, stride);
    if (sent >> sendings == 0 && done == last_before(slice, sendings, sent)) {
      send_maxima(cluster, maxima, sent++, shared);
      clear(maxima);
    }
  }
#pragma unroll 1
  for (; sent >> sendings == 0; ++sent) {  // there are fewer pieces
    send_maxima(cluster, maxima, sent, shared);
    clear(maxima);
  }
}

}  // namespace adamas_cuda
