// Attention over listed tokens, in an order that Spec and Tuning fix, whatever launch does it: a list is cut
// into chunks of kChunk tokens, a chunk into tiles of 16. A warp takes a tile, on tensor cores, its K and V
// straight from memory in registers; the tiles of a chunk are added in order, then the chunks of a list in
// theirs. A query head has two columns of a product, for the upper and lower bits of float32 numbers, so that
// queries of any type and weights keep their accuracy among 16-bit numbers. The elements of a vector may be
// added up in any order: lanes take whole vectors of 8, as they lie in memory, for what an instruction calls
// neighbours.
#pragma once

#include "templates/cuda/element.cuh"
#include "templates/cuda/partial.cuh"
#include "templates/cuda/place.cuh"
#include "templates/cuda/tensor_core.cuh"

namespace adamas_cuda {

constexpr int kHeadsPerList = kGroup / kSelectionsPerKvHead;  ///< query heads that share a list
constexpr int kTile = 16;                                     ///< tokens
constexpr int kTilesPerChunk = kChunk / kTile;
static_assert(kChunk % kTile == 0, "a chunk is whole tiles");
constexpr int kChunksPerList = (kBudget + kChunk - 1) / kChunk;

/// Query heads are taken in passes of at most 4: so many have two columns each.
constexpr int kListPasses = (kHeadsPerList + 3) / 4;
constexpr int kListHeadsAtOnce = (kHeadsPerList + kListPasses - 1) / kListPasses;

constexpr int kVectorElements = 8;  ///< that a lane loads together
constexpr int kKeyVectors = kHeadDim / kVectorElements, kValueVectors = kValueDim / kVectorElements;
constexpr int kKeyLanes = 4, kValueLanes = 8;  ///< that share a row
constexpr int kRoundVectors = 16;              ///< of a row that are in registers at once
constexpr int kKeyVectorsOfLane =
    ((kKeyVectors < kRoundVectors ? kKeyVectors : kRoundVectors) + kKeyLanes - 1) / kKeyLanes;
constexpr int kValueVectorsOfLane =
    ((kValueVectors < kRoundVectors ? kValueVectors : kRoundVectors) + kValueLanes - 1) / kValueLanes;
constexpr int kKeyRounds = (kKeyVectors + kRoundVectors - 1) / kRoundVectors;
constexpr int kValueRounds = (kValueVectors + kRoundVectors - 1) / kRoundVectors;
constexpr bool kWholeRows = kKeyRounds == 1 && kValueRounds == 1;  ///< of K and V at once

/// Floats of partial sums in shared memory: as in global memory, and rounded up to 16 bytes.
constexpr int kSharedPartialFloats = kValueDim + 4;

// ---- 16-bit numbers of a product

/// What tensor cores multiply: the type of K and V, or f16, which holds any e4m3 number.
constexpr Element kProductType = kKvType == Element::bf16 ? Element::bf16 : Element::f16;
constexpr bool kProductsOfBf16 = kProductType == Element::bf16;
constexpr bool kExactQuery = kQueryType == kProductType;
/// Queries that f16 has no range for are divided by a power of two.
constexpr bool kDividesQuery = !kExactQuery && !kProductsOfBf16;
/// What K and V are multiplied by in order to be what they mean.
constexpr float kKvFactor = kKvType == Element::f8e4m3fn ? kF8OfF16 : 1.0f;
constexpr bool kScalesDots = kScaled || kDividesQuery || kKvFactor != 1.0f;

__device__ __forceinline__ unsigned short narrow(float value) {
  return kProductsOfBf16 ? float_to_bf16(value) : float_to_f16(value);
}

/// A float32 as the sum of two 16-bit numbers.
struct Split {
  unsigned short high, low;

  __device__ __forceinline__ unsigned pair() const { return word_of(high, low); }
};
__device__ __forceinline__ Split split(float value) {
  const unsigned short high = narrow(value);
  return {high, narrow(value - widen<kProductType>(high))};
}

/// Eight elements of K or V as they are multiplied, two to a word.
template <Element kType>
__device__ __forceinline__ uint4 product_words(const RawVector<kType>& raw) {
  if constexpr (kType == Element::f8e4m3fn) {
    return {f8_pair_as_f16(raw.x), f8_pair_as_f16(raw.x >> 16), f8_pair_as_f16(raw.y),
            f8_pair_as_f16(raw.y >> 16)};
  } else {
    return raw;
  }
}

// ---- queries

/// Queries of a pass: their upper parts, and the lower ones if the first are not all. Zeros for heads that
/// the last pass has too many.
struct alignas(16) PassQueries {
  static constexpr int kParts = kExactQuery ? 1 : 2;
  unsigned words[kListHeadsAtOnce][kParts][kHeadDim / 2];
  float factors[kListHeadsAtOnce];  ///< of their dots, where kScalesDots
};

/// A power of two that brings a query's elements into the range of f16, and its inverse. By a warp.
struct QueryFactor {
  float factor, inverse;
};
__device__ __forceinline__ QueryFactor query_factor(const void* query, i64 first) {
  if constexpr (!kDividesQuery) return {1.0f, 1.0f};
  unsigned largest = 0;
#pragma unroll 1
  for (int i = lane_index(); i < kHeadDim; i += kWarp) {
    largest = max(largest, __float_as_uint(load_element<kQueryType>(query, first + i)) & 0x7fffffffu);
  }
  const unsigned exponent = min(max(__reduce_max_sync(kAllLanes, largest) >> 23, 1u), 253u);
  return {__uint_as_float(exponent << 23), __uint_as_float((254 - exponent) << 23)};
}

/// The queries of heads done .. of the list whose heads begin at `first_head`. By `warps` warps, of which
/// this is number `warp`; a barrier must follow.
__device__ __forceinline__ void load_pass_queries(const Args& args, int row_index, int first_head, int done,
                                                  int warp, int warps, PassQueries& queries) {
#pragma unroll 1
  for (int i = warp; i < kListHeadsAtOnce; i += warps) {
    const bool exists = done + i < kHeadsPerList;
    const i64 query = row_index * args.query_row_stride +
                      (first_head + min(done + i, kHeadsPerList - 1)) * args.query_head_stride;
    const QueryFactor by = query_factor(args.query, query);
#pragma unroll 1
    for (int word = lane_index(); word < kHeadDim / 2; word += kWarp) {
      if constexpr (kExactQuery) {
        const auto low = load_raw_element<kQueryType>(args.query, query + 2 * word),
                   high = load_raw_element<kQueryType>(args.query, query + 2 * word + 1);
        queries.words[i][0][word] = exists ? word_of(low, high) : 0u;
      } else {
        const Split even = split(load_element<kQueryType>(args.query, query + 2 * word) * by.inverse),
                    odd = split(load_element<kQueryType>(args.query, query + 2 * word + 1) * by.inverse);
        queries.words[i][0][word] = exists ? word_of(even.high, odd.high) : 0u;
        queries.words[i][1][word] = exists ? word_of(even.low, odd.low) : 0u;
      }
    }
    if constexpr (kScalesDots) {
      const float scale = kScaled ? key_scale(args, first_head / kGroup) : 1.0f;
      if (lane_index() == 0) queries.factors[i] = scale * by.factor * kKvFactor;
    }
  }
}

/// Logit of a dot product q.k.
__device__ __forceinline__ float logit_of(const Args& args, float dot) {
  const float logit = dot * args.scale;
  if constexpr (kSoftCap) return args.soft_cap * tanhf(logit / args.soft_cap);
  return logit;
}

// ---- tiles

/// K and V rows of a tile on their way, as many vectors as registers hold: lane 4 r + p has vectors p, p + 4,
/// ... of the keys of tokens r and r + 8, and vectors r, r + 8 of the values of tokens 2 p, 2 p + 1, 2 p + 8
/// and 2 p + 9.
struct TileRows {
  RawVector<kKvType> key[2][kKeyVectorsOfLane];
  RawVector<kKvType> value[4][kValueVectorsOfLane];
  const void* row;  ///< of token lane % 16: where its key begins, in the upper lanes its value; of a token
                    ///< that exists in place of one that does not
  unsigned tokens;  ///< bit t: token t exists
};

/// A lane's vectors first, first + kLanes, ... of a row of kVectors; zeros where there are none.
template <int kVectors, int kLanes, int kCount>
__device__ __forceinline__ void load_vectors(const void* row, int first,
                                             RawVector<kKvType> (&vectors)[kCount]) {
#pragma unroll
  for (int v = 0; v < kCount; ++v) {
    const int vector = first + v * kLanes;
    if (kVectors % (kCount * kLanes) == 0 || vector < kVectors) {
      load_now(static_cast<const RawVector<kKvType>*>(row) + vector, vectors[v]);
    } else {
      vectors[v] = {};
    }
  }
}

__device__ __forceinline__ void load_keys(TileRows& rows, int round) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_vectors<kKeyVectors, kKeyLanes>(address_of_lane(rows.row, lane_index() / 4 + 8 * i),
                                         round * kRoundVectors + lane_index() % 4, rows.key[i]);
  }
}

__device__ __forceinline__ void load_values(TileRows& rows, int round) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int token = lane_index() % 4 * 2 + i % 2 + i / 2 * 8;
    load_vectors<kValueVectors, kValueLanes>(address_of_lane(rows.row, kTile + token),
                                             round * kRoundVectors + lane_index() / 4, rows.value[i]);
  }
}

/// Which token of a tile a lane looks up for attend_tile.
__device__ __forceinline__ int token_of_lane() { return lane_index() % kTile; }

/// Begins to load a tile.
/// @return whether any token does; otherwise nothing is loaded
__device__ __forceinline__ bool load_tile(const Args& args, int kv_head, const Place& place, TileRows& rows) {
  rows.tokens = __ballot_sync(kAllLanes, place.page >= 0) & 0xffffu;
  if (rows.tokens == 0) return false;
  const RowInMemory key = key_row(args, kv_head, place), value = value_row(args, kv_head, place);
  const bool of_key = lane_index() < kTile;
  rows.row = static_cast<const typename Raw<kKvType>::Unit*>(of_key ? key.array : value.array) +
             (of_key ? key.first : value.first);
  if (rows.tokens != 0xffffu) {
    const int any = __ffs(static_cast<int>(rows.tokens)) - 1 + lane_index() / kTile * kTile;
    const void* const row = address_of_lane(rows.row, any);
    if (place.page < 0) rows.row = row;
  }
  load_keys(rows, 0);
  if (kWholeRows) load_values(rows, 0);
  __syncwarp();  // nothing is loaded later
  return true;
}

/// Adds q.k of a round's vectors, of the tile's tokens lane / 4 and lane / 4 + 8 and both columns of head
/// lane % 4. Neighbouring instructions have sums of their own.
__device__ __forceinline__ void multiply_keys(const TileRows& rows, const PassQueries& queries, int round,
                                              float (&sums)[2][4]) {
  const int head = lane_index() / 8, part = lane_index() / 4 % 2;  // of this lane's column
  const bool has_column = head < kListHeadsAtOnce && part < PassQueries::kParts;
  const auto* const words =
      reinterpret_cast<const uint4*>(queries.words[has_column ? head : 0][has_column ? part : 0]);
#pragma unroll
  for (int v = 0; v < kKeyVectorsOfLane; ++v) {
    const int vector = round * kRoundVectors + v * kKeyLanes + lane_index() % 4;
    uint4 query = {};
    if (has_column && vector < kKeyVectors) query = words[vector];
    const uint4 upper = product_words<kKvType>(rows.key[0][v]),
                lower = product_words<kKvType>(rows.key[1][v]);
    add_product<kProductsOfBf16>(sums[0], {upper.x, lower.x, upper.y, lower.y}, {query.x, query.y});
    add_product<kProductsOfBf16>(sums[1], {upper.z, lower.z, upper.w, lower.w}, {query.z, query.w});
  }
}

/// Largest of a value over the tokens of a tile: lanes of the same head.
__device__ __forceinline__ float max_over_tokens(float value) {
#pragma unroll
  for (int distance = 4; distance < kWarp; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

__device__ __forceinline__ float sum_over_tokens(float value) {
#pragma unroll
  for (int distance = 4; distance < kWarp; distance *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

/// Weights of a tile for head lane % 4.
struct TileWeights {
  float largest;  ///< logit, to which they are relative
  float sum;
  unsigned columns[2];  ///< as the right-hand side: tokens 2 (lane % 4) .., upper or lower part of a head
};

__device__ __forceinline__ TileWeights weigh(const Args& args, const PassQueries& queries, unsigned tokens,
                                             const float (&sums)[2][4]) {
  TileWeights weights;
  float logits[2];
  bool exists[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float dot = sums[0][2 * i] + sums[1][2 * i];
    if constexpr (PassQueries::kParts == 2) {
      // Of an infinite key the upper part says all: the lower one may have the other sign.
      const bool infinite = fabsf(dot) == -negative_infinity();
      if (!infinite) dot += sums[0][2 * i + 1] + sums[1][2 * i + 1];
    }
    if constexpr (kScalesDots) dot *= queries.factors[min(lane_index() % 4, kListHeadsAtOnce - 1)];
    exists[i] = (tokens >> (lane_index() / 4 + 8 * i) & 1u) != 0;
    logits[i] = exists[i] ? logit_of(args, dot) : negative_infinity();
  }
  weights.largest = max_over_tokens(fmaxf(logits[0], logits[1]));
  const float base = exponent_base(weights.largest);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float weight = exists[i] ? __expf(logits[i] - base) : 0.0f;
    sum += weight;
    weights.columns[i] = transposed(split(weight).pair());
  }
  weights.sum = sum_over_tokens(sum);
  return weights;
}

/// Element `half` of the same words of two tokens' vectors, side by side.
__device__ __forceinline__ unsigned pair_of(unsigned first, unsigned second, int half) {
  return __byte_perm(first, second, half == 0 ? 0x5410 : 0x7632);
}

/// Weighted sums of a round's values for head lane % 4: of the elements of this lane's vectors.
__device__ __forceinline__ void multiply_values(const TileRows& rows, const TileWeights& weights,
                                                float (&sums)[kValueVectorsOfLane][kVectorElements]) {
  unsigned words[4][kValueVectorsOfLane][4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int v = 0; v < kValueVectorsOfLane; ++v) {
      const uint4 four = product_words<kKvType>(rows.value[i][v]);
      words[i][v][0] = four.x, words[i][v][1] = four.y, words[i][v][2] = four.z, words[i][v][3] = four.w;
    }
  }
  // Rows of the left-hand side: an element each of two vectors, or two of one.
  constexpr bool kTwo = kValueVectorsOfLane == 2;
#pragma unroll
  for (int element = 0; element < (kTwo ? 8 : 4); ++element) {
    const int word = element / 2, half = element % 2;
    constexpr int kOther = kTwo ? 1 : 0, kOtherWord = kTwo ? 0 : 2;
    float both[4] = {};
    add_product<kProductsOfBf16>(
        both,
        {pair_of(words[0][0][word], words[1][0][word], half),
         pair_of(words[0][kOther][word + kOtherWord], words[1][kOther][word + kOtherWord], half),
         pair_of(words[2][0][word], words[3][0][word], half),
         pair_of(words[2][kOther][word + kOtherWord], words[3][kOther][word + kOtherWord], half)},
        weights.columns);
    sums[0][element] = (both[0] + both[1]) * kKvFactor;
    sums[kOther][element + 2 * kOtherWord] = (both[2] + both[3]) * kKvFactor;
  }
}

/// Partial sums of a tile without tokens.
__device__ __forceinline__ void attend_nothing(int heads, float* partials, int stride) {
#pragma unroll 1
  for (int i = lane_index(); i < heads * kPartialFloats; i += kWarp) {
    const int float_of_head = i % kPartialFloats;
    partials[i / kPartialFloats * stride + float_of_head] =
        float_of_head == kValueDim ? negative_infinity() : 0.0f;
  }
}

/// Partial sums of a tile that has tokens.
__device__ __forceinline__ void sum_tile(const Args& args, const PassQueries& queries, TileRows& rows,
                                         int heads, float* partials, int stride) {
  float dots[2][4] = {};
#pragma unroll
  for (int round = 0; round < kKeyRounds; ++round) {
    if (round > 0) load_keys(rows, round);
    multiply_keys(rows, queries, round, dots);
  }
  if (!kWholeRows) load_values(rows, 0);
  __syncwarp();
  const TileWeights weights = weigh(args, queries, rows.tokens, dots);
  const int head = lane_index() % 4;
  float* const partial = partials + head * stride;
#pragma unroll
  for (int round = 0; round < kValueRounds; ++round) {
    if (round > 0) load_values(rows, round);
    float sums[kValueVectorsOfLane][kVectorElements];
    multiply_values(rows, weights, sums);
#pragma unroll
    for (int v = 0; v < kValueVectorsOfLane; ++v) {
      const int vector = round * kRoundVectors + v * kValueLanes + lane_index() / 4;
      if (head >= heads || vector >= kValueVectors) continue;
#pragma unroll
      for (int i = 0; i < kVectorElements; i += 4) {
        *reinterpret_cast<float4*>(partial + vector * kVectorElements + i) =
            float4{sums[v][i], sums[v][i + 1], sums[v][i + 2], sums[v][i + 3]};
      }
    }
  }
  if (lane_index() < heads) {
    partial[kValueDim] = weights.largest;
    partial[kValueDim + 1] = weights.sum;
  }
}

/// Attention of `heads` query heads to a tile.
/// @param place     of token token_of_lane(); nowhere: it does not exist
/// @param partials  of the first head; the others' are `stride` floats apart
/// @return which of its tokens exist, a bit each
__device__ __forceinline__ unsigned attend_tile(const Args& args, int kv_head, const PassQueries& queries,
                                                const Place& place, int heads, float* partials, int stride) {
  TileRows rows;
  if (load_tile(args, kv_head, place, rows)) {
    sum_tile(args, queries, rows, heads, partials, stride);
  } else {
    attend_nothing(heads, partials, stride);
  }
  return rows.tokens;
}

}  // namespace adamas_cuda
