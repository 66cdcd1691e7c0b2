// Attention of a group over consecutive tokens -> partial softmax sums, on tensor cores: tiles of 16 tokens
// by 8 query heads. Every warp works through tiles of its own, whose K and V come through a ring of its own,
// so that warps wait for memory and not for each other. Weights keep the accuracy of float32: they are
// multiplied as a sum of two 16-bit numbers.
#pragma once

#include "templates/cuda/dense.cuh"

namespace adamas_cuda {

static_assert(kKvType == kQueryType && (kKvType == Element::f16 || kKvType == Element::bf16),
              "tensor cores multiply numbers of the same 16-bit type");

constexpr int kTileHeads = 8;  ///< query heads
constexpr int kDepth = 16;     ///< elements that one instruction adds up
constexpr int kHeadsAtOnce = kDenseHeadTiles * kTileHeads;
constexpr int kTileStride =
    (kHeadDim > kValueDim ? kHeadDim : kValueDim) * 2 + 16;  ///< bytes; rows of a piece in
                                                             ///< different banks
constexpr int kTileBytes = kTile * kTileStride;

/// Where a token's K and V begin; null: nowhere.
struct TokenRows {
  const void* key;
  const void* value;
};

/// Partial sums of a warp, of each of the heads at once.
using WarpSums = float[kHeadsAtOnce][kPartialFloats];

struct alignas(16) DenseShared {
  union {
    alignas(16) unsigned char rings[kDenseWarps][kDenseSlots][kTileBytes];  // while tiles come in
    WarpSums sums[kDenseWarps];                                             // while warps are added up
  };
  TokenRows rows[kDenseWarps][2][kTile];  // of the tile that is added up and of the one that comes in
};

/// The tiles of a warp: every kDenseWarps-th of the chunk, first K, then V of each.
class TileStream {
 public:
  /// @param chunk  of which kv_head's K and V are wanted
  /// @param ring   kDenseSlots halves of tiles
  /// @param rows   of two tiles
  __device__ __forceinline__ TileStream(const Args& args, const Row& row, int kv_head, const Chunk& chunk,
                                        unsigned char* ring, TokenRows (*rows)[kTile])
      : args_(args), kv_head_(kv_head), chunk_(chunk), ring_(ring), rows_(rows) {
    places_ = places_of_sequence(args, row.sequence, status_);
    begin_next<true>();
    if constexpr (kDenseSlots > 2) begin_next<false>();
    if constexpr (kDenseSlots > 3) begin_next<true>();
    static_assert(kDenseSlots >= 2 && kDenseSlots <= 4,
                  "a ring holds 2 to 4 halves of tiles, of two at most");
  }

  /// Waits for the next K or V: row t of the tile begins at t * kTileStride. Lanes may still be reading the
  /// one before, but no earlier one. Tokens that do not exist are zeros.
  /// @tparam kKeys  whether it is K: the two take turns
  template <bool kKeys>
  __device__ __forceinline__ const unsigned char* next() {
    wait_for_copies<kDenseSlots - 2>();
    __syncwarp();  // copies of all lanes are there, and all have read what begin_next writes over
    begin_next<kKeys == (kDenseSlots % 2 == 1)>();
    if constexpr (kKeys) tile_ ^= 1;
    const unsigned char* const slot = ring_ + read_ * kTileBytes;
    read_ = read_ + 1 == kDenseSlots ? 0 : read_ + 1;
    return slot;
  }

  /// Whether token `token` of the tile whose K was last asked for exists, until its V is.
  __device__ __forceinline__ bool exists(int token) const { return rows_[tile_][token].key != nullptr; }

  /// Waits for what nobody asked for, and reports tables that were wrong.
  __device__ __forceinline__ void end() {
    wait_for_copies<0>();
    report(args_, status_);
  }

 private:
  template <bool kKeys>
  __device__ __forceinline__ void begin_next() {
    if (first_ < chunk_.tokens) {
      if constexpr (kKeys) {
        begun_ ^= 1;
        find_rows();
      }
      copy<kKeys>(ring_ + written_ * kTileBytes);
    }
    end_copies();
    if constexpr (!kKeys) first_ += kDenseWarps * kTile;
    written_ = written_ + 1 == kDenseSlots ? 0 : written_ + 1;
  }

  /// Looks up where the tokens of the tile to begin lie: half of the lanes their K, the others their V.
  __device__ __forceinline__ void find_rows() {
    const int token = lane_index() % kTile;
    const bool is_key = lane_index() < kTile;
    const void* found = nullptr;
    if (first_ + token < chunk_.tokens) {
      const unsigned index = slot_index(places_, chunk_.first + first_ + token, status_);
      const Place place = place_of_rows(places_, index, status_);
      const RowInMemory row = is_key ? key_row(args_, kv_head_, place) : value_row(args_, kv_head_, place);
      if (place.page >= 0) found = static_cast<const unsigned short*>(row.array) + row.first;
    }
    TokenRows& rows = rows_[begun_][token];
    (is_key ? rows.key : rows.value) = found;
    __syncwarp();
  }

  template <bool kKeys>
  __device__ __forceinline__ void copy(unsigned char* slot) const {
    constexpr int kVectors = (kKeys ? kHeadDim : kValueDim) / 8;  // of 16 bytes, of a row; even
#pragma unroll
    for (int round = 0; round < kTile * kVectors / kWarp; ++round) {
      const int i = round * kWarp + lane_index();
      const int token = i / kVectors, vector = i % kVectors;
      const TokenRows& rows = rows_[begun_][token];
      const auto* const row = static_cast<const unsigned char*>(kKeys ? rows.key : rows.value);
      copy_async_of_line(slot + token * kTileStride + vector * 16,
                         row == nullptr ? nullptr : row + vector * 16, row != nullptr);
    }
  }

  const Args& args_;
  const int kv_head_;
  const Chunk chunk_;
  unsigned char* const ring_;
  TokenRows (*const rows_)[kTile];
  Places places_;
  unsigned status_ = 0;
  int first_ = warp_index() * kTile;  ///< token of the tile to begin
  int written_ = 0, read_ = 0;        ///< slots
  int begun_ = 1, tile_ = 1;          ///< which rows: of the tile that was begun, of the one that is added up
};

/// Queries as the right-hand side: dimension by head.
struct TileQueries {
  unsigned pieces[kDenseHeadTiles][kHeadDim / kDepth][2];
};

/// Of `heads` heads from `first_head` on; zeros for those that are not there.
__device__ __forceinline__ void load_tile_queries(const Args& args, int row_index, int first_head, int heads,
                                                  TileQueries& queries) {
  const auto* const query =
      static_cast<const unsigned short*>(args.query) + row_index * args.query_row_stride;
#pragma unroll
  for (int tile = 0; tile < kDenseHeadTiles; ++tile) {
    const int head = tile * kTileHeads + lane_index() / 4;
    const unsigned short* const elements =
        query + (first_head + min(head, heads - 1)) * args.query_head_stride;
#pragma unroll
    for (int step = 0; step < kHeadDim / kDepth; ++step) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const unsigned short* const pair = elements + step * kDepth + half * 8 + lane_index() % 4 * 2;
        const unsigned word = word_of(pair[0], pair[1]);
        queries.pieces[tile][step][half] = head < heads ? word : 0u;
      }
    }
  }
}

/// What a warp has added up, for the two heads of each tile that a lane has: 2 (lane % 4) and the next.
struct TileSums {
  float largest[kDenseHeadTiles][2];
  float weights[kDenseHeadTiles][2];                    ///< of this lane's tokens
  float values[kDenseHeadTiles][kValueDim / kTile][4];  ///< of elements lane / 4 and lane / 4 + 8 of 16
};

/// Two weights as the sum of two pairs of 16-bit numbers.
struct SplitPair {
  unsigned high, low;
};
__device__ __forceinline__ SplitPair split(float first, float second) {
  const Split a = split(first), b = split(second);
  return {word_of(a.high, b.high), word_of(a.low, b.low)};
}

/// q.k of a tile: of tokens lane / 4 and lane / 4 + 8, two heads each.
__device__ __forceinline__ void multiply_keys(const unsigned char* keys, const TileQueries& queries,
                                              float (&dots)[kDenseHeadTiles][4]) {
  const unsigned char* const row = keys + lane_index() % 16 * kTileStride + lane_index() / 16 * 16;
#pragma unroll
  for (int step = 0; step < kHeadDim / kDepth; ++step) {
    unsigned pieces[4];
    load_pieces(pieces, row + step * (kDepth * 2));
#pragma unroll
    for (int tile = 0; tile < kDenseHeadTiles; ++tile) {
      add_product<kProductsOfBf16>(dots[tile], pieces, queries.pieces[tile][step]);
    }
  }
}

/// Dots -> weights, relative to the largest logit so far; what was added up before is scaled to it.
/// @param first_exists, second_exists  whether this lane's tokens do
/// @return the weights as the right-hand side: token by head, in two parts
__device__ __forceinline__ void weigh(const Args& args, float (&dots)[4], bool first_exists,
                                      bool second_exists, float (&largest)[2], float (&weights)[2],
                                      float (&values)[kValueDim / kTile][4], unsigned (&high)[2],
                                      unsigned (&low)[2]) {
  float factors[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const float first = first_exists ? logit_of(args, dots[j]) : negative_infinity();
    const float second = second_exists ? logit_of(args, dots[2 + j]) : negative_infinity();
    const float most = fmaxf(largest[j], max_over_tokens(fmaxf(first, second)));
    const float base = exponent_base(most);
    factors[j] = __expf(largest[j] - base);
    largest[j] = most;
    dots[j] = first_exists ? __expf(first - base) : 0.0f;
    dots[2 + j] = second_exists ? __expf(second - base) : 0.0f;
    weights[j] = weights[j] * factors[j] + dots[j] + dots[2 + j];
  }
#pragma unroll
  for (float(&of_elements)[4] : values) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      of_elements[i] *= factors[i % 2];
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const SplitPair pair = split(dots[2 * half], dots[2 * half + 1]);
    high[half] = transposed(pair.high);
    low[half] = transposed(pair.low);
  }
}

/// Adds the weighted V of a tile.
__device__ __forceinline__ void multiply_values(const unsigned char* tile_values,
                                                const unsigned (&high)[kDenseHeadTiles][2],
                                                const unsigned (&low)[kDenseHeadTiles][2], TileSums& sums) {
  // Elements are rows of the left-hand side, so pieces of V are transposed.
  const int token = lane_index() % 8 + lane_index() / 16 * 8;
  const unsigned char* const row = tile_values + token * kTileStride + lane_index() / 8 % 2 * 16;
#pragma unroll
  for (int part = 0; part < kValueDim / kTile; ++part) {
    unsigned pieces[4];
    load_pieces_transposed(pieces, row + part * (kTile * 2));
#pragma unroll
    for (int tile = 0; tile < kDenseHeadTiles; ++tile) {
      add_product<kProductsOfBf16>(sums.values[tile][part], pieces, high[tile]);
      add_product<kProductsOfBf16>(sums.values[tile][part], pieces, low[tile]);
    }
  }
}

/// A warp's tiles of the chunk.
__device__ __forceinline__ void add_tiles(const Args& args, const TileQueries& queries, int tokens,
                                          TileStream& stream, TileSums& sums) {
#pragma unroll 1
  for (int first = warp_index() * kTile; first < tokens; first += kDenseWarps * kTile) {
    float dots[kDenseHeadTiles][4] = {};
    multiply_keys(stream.next<true>(), queries, dots);
    const int token = lane_index() / 4;
    const bool first_exists = stream.exists(token), second_exists = stream.exists(token + 8);
    unsigned high[kDenseHeadTiles][2], low[kDenseHeadTiles][2];
#pragma unroll
    for (int tile = 0; tile < kDenseHeadTiles; ++tile) {
      weigh(args, dots[tile], first_exists, second_exists, sums.largest[tile], sums.weights[tile],
            sums.values[tile], high[tile], low[tile]);
    }
    multiply_values(stream.next<false>(), high, low, sums);
  }
  stream.end();
}

__device__ __forceinline__ void store_sums(const TileSums& sums, WarpSums& out) {
#pragma unroll
  for (int tile = 0; tile < kDenseHeadTiles; ++tile) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float* const head = out[tile * kTileHeads + lane_index() % 4 * 2 + j];
#pragma unroll
      for (int part = 0; part < kValueDim / kTile; ++part) {
        head[part * kTile + lane_index() / 4] = sums.values[tile][part][j];
        head[part * kTile + lane_index() / 4 + 8] = sums.values[tile][part][2 + j];
      }
      const float weights = sum_over_tokens(sums.weights[tile][j]);
      if (lane_index() / 4 != 0) continue;
      head[kValueDim] = sums.largest[tile][j];
      head[kValueDim + 1] = weights;
    }
  }
}

/// Attention of the group over a chunk of all that a row sees.
__device__ __forceinline__ void attend_chunk(const Args& args, const Row& row, int row_index, int kv_head,
                                             const Chunk& chunk) {
  auto& shared = *reinterpret_cast<DenseShared*>(dynamic_shared);
#pragma unroll 1
  for (int done = 0; done < kGroup; done += kHeadsAtOnce) {
    const int first_head = kv_head * kGroup + done, heads = min(kHeadsAtOnce, kGroup - done);
    TileSums sums = {};
#pragma unroll
    for (float(&of_tile)[2] : sums.largest) {
      of_tile[0] = of_tile[1] = negative_infinity();
    }
    if (warp_index() < kDenseWarps) {
      TileStream stream(args, row, kv_head, chunk, shared.rings[warp_index()][0], shared.rows[warp_index()]);
      TileQueries queries;
      load_tile_queries(args, row_index, first_head, heads, queries);
      add_tiles(args, queries, chunk.tokens, stream, sums);
    }
    __syncthreads();  // sums take the place of the rings
    if (warp_index() < kDenseWarps) store_sums(sums, shared.sums[warp_index()]);
    __syncthreads();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < heads * kValueDim; i += kThreads) {
      const int head = i / kValueDim, column = i % kValueDim;
      const Merged<1> merged = merge_partials<kDenseWarps>(
          shared.sums[0][head], kHeadsAtOnce * kPartialFloats, kDenseWarps, column);
      float* const partial = partial_sums(args, row_index, first_head + head, chunk.index);
      partial[column] = merged.sums[0];
      if (column != 0) continue;
      partial[kValueDim] = merged.weights == merged.weights ? merged.largest : merged.weights;
      partial[kValueDim + 1] = merged.weights;
    }
    __syncthreads();
  }
}

}  // namespace adamas_cuda
