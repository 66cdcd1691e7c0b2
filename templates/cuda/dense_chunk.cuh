// Attention of a group over consecutive tokens -> partial softmax sums, element by element: for types that
// tensor cores don't take as they are (see dense_tiles.cuh).
#pragma once

#include "templates/cuda/dense.cuh"

namespace adamas_cuda {

/// How the threads of a block share a chunk of a row that attends to all. More heads than kMostHeadsAtOnce
/// are taken in passes, so that their sums fit the registers; later passes find keys and values in a cache.
struct ChunkShape {
  static constexpr int kHeads = kGroup;
  static constexpr int kPasses = (kHeads + kMostHeadsAtOnce - 1) / kMostHeadsAtOnce;
  static constexpr int kHeadsAtOnce = (kHeads + kPasses - 1) / kPasses;
  // Keys: kKeyLanes lanes read a row in 16-byte vectors.
  static constexpr int kKeyVectors = kHeadDim / 8;
  static constexpr int kKeyLanes = kKeyVectors >= 32   ? 32
                                   : kKeyVectors >= 16 ? 16
                                   : kKeyVectors >= 8  ? 8
                                   : kKeyVectors >= 4  ? 4
                                                       : 2;
  // Values: a thread sums kColumns columns for every head, over every kSlices-th token.
  static constexpr int kColumns = kHeadsAtOnce <= 4 ? 8 : 4;
  static constexpr int kValueVectors = kValueDim / kColumns;
  static constexpr int kValueLanes = kValueVectors < kThreads ? kValueVectors : kThreads;
  static constexpr int kSlices = kThreads / kValueLanes;
  /// Tokens whose rows a thread loads before it uses the first. Many heads have enough to do with one.
  static constexpr int kTokensInFlight = kHeadsAtOnce <= 2 ? 2 : 1;
};

struct alignas(16) DenseShared {
  using Shape = ChunkShape;
  union {
    float queries[Shape::kHeadsAtOnce][kHeadDim];                // while logits are made
    float sums[Shape::kSlices][Shape::kHeadsAtOnce][kValueDim];  // while slices are added
  };
  float weights[Shape::kHeadsAtOnce][kDenseChunk];  ///< logits, then weights
  Place places[kDenseChunk];                        ///< nowhere: a token that is left out
};

/// float32 queries of `heads` heads from `first_head` on, times the scale of the keys; zeros for the rest of
/// the pass.
template <int kHeadsAtOnce>
__device__ __forceinline__ void load_queries(const Args& args, int row_index, int first_head, int heads,
                                             float (&queries)[kHeadsAtOnce][kHeadDim]) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kHeadsAtOnce * kHeadDim; i += kThreads) {
    const int head = i / kHeadDim, element = i % kHeadDim;
    const i64 query = row_index * args.query_row_stride + (first_head + head) * args.query_head_stride;
    float value = head < heads ? load_element<kQueryType>(args.query, query + element) : 0.0f;
    if constexpr (kScaled) value *= key_scale(args, first_head / kGroup);
    queries[head][element] = value;
  }
}

/// Looks up where the chunk's tokens lie.
__device__ __forceinline__ void load_places(const Args& args, const Row& row, const Chunk& chunk,
                                            Place* places) {
  unsigned status = 0;
  const Places sequence = places_of_sequence(args, row.sequence, status);
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < chunk.tokens; t += kThreads) {
    places[t] = place_of_rows(sequence, slot_index(sequence, chunk.first + t, status), status);
  }
  report(args, status);
}

/// Logits of all heads and tokens.
__device__ __forceinline__ void make_logits(const Args& args, int kv_head, int tokens, DenseShared& shared) {
  using Shape = ChunkShape;
  constexpr int kTokensInFlight = Shape::kTokensInFlight;
  constexpr int kLanes = Shape::kKeyLanes, kTokensAtOnce = kThreads / kLanes, kRows = Shape::kHeadsAtOnce;
  const int part = static_cast<int>(threadIdx.x) % kLanes;
  // Every lane makes every round: lanes of a token add up by shuffles.
#pragma unroll kTokensInFlight
  for (int round = 0; round < tokens; round += kTokensAtOnce) {
    const int t = round + static_cast<int>(threadIdx.x) / kLanes;
    const Place place = shared.places[min(t, tokens - 1)];
    const RowInMemory key = key_row(args, kv_head, place);
    const bool exists = !kPointers || place.page >= 0;
    float dots[kRows] = {};
#pragma unroll
    for (int vector = part; vector < Shape::kKeyVectors; vector += kLanes) {
      if (!exists) continue;
      float elements[8];
      load_vector<kKvType>(key.array, key.first + vector * 8, elements);
#pragma unroll
      for (int head = 0; head < kRows; ++head) {
        const float* query = &shared.queries[head][vector * 8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          dots[head] += query[i] * elements[i];
        }
      }
    }
#pragma unroll
    for (int head = 0; head < kRows; ++head) {
      const float dot = sum_over_lanes<kLanes>(dots[head]);
      if (part == 0 && t < tokens) {
        shared.weights[head][t] = exists ? logit_of(args, dot) : negative_infinity();
      }
    }
  }
}

/// Logits -> weights exp(logit - largest); writes the largest and the sum of weights to the partial sums. A
/// warp a head.
__device__ __forceinline__ void make_weights(const Args& args, int row_index, int first_head, int heads,
                                             const Chunk& chunk, DenseShared& shared) {
#pragma unroll 1
  for (int head = warp_index(); head < heads; head += kAttendWarps) {
    float* weights = shared.weights[head];
    float largest = negative_infinity();
#pragma unroll 1
    for (int t = lane_index(); t < chunk.tokens; t += kWarp) {
      largest = fmaxf(largest, weights[t]);
    }
    largest = max_over_warp(largest);
    const float base = exponent_base(largest);
    float sum = 0.0f;
#pragma unroll 1
    for (int t = lane_index(); t < chunk.tokens; t += kWarp) {
      weights[t] = __expf(weights[t] - base);
      sum += weights[t];
    }
    sum = sum_over_lanes(sum);
    if (lane_index() == 0) {
      float* partial = partial_sums(args, row_index, first_head + head, chunk.index);
      partial[kValueDim] = sum == sum ? largest : sum;
      partial[kValueDim + 1] = sum;
    }
  }
}

/// Weighted sums of the value rows -> the partial sums of `heads` heads.
__device__ __forceinline__ void sum_values(const Args& args, int row_index, int kv_head, int first_head,
                                           int heads, const Chunk& chunk, DenseShared& shared) {
  using Shape = ChunkShape;
  constexpr int kTokensInFlight = Shape::kTokensInFlight;
  constexpr int kColumns = Shape::kColumns, kRows = Shape::kHeadsAtOnce;
  const int slice = static_cast<int>(threadIdx.x) / Shape::kValueLanes;
  const int first_vector = static_cast<int>(threadIdx.x) % Shape::kValueLanes;
  if (slice < Shape::kSlices) {
#pragma unroll 1
    for (int vector = first_vector; vector < Shape::kValueVectors; vector += Shape::kValueLanes) {
      float sums[kRows][kColumns] = {};
#pragma unroll kTokensInFlight
      for (int t = slice; t < chunk.tokens; t += Shape::kSlices) {
        const Place place = shared.places[t];
        if (kPointers && place.page < 0) continue;
        const RowInMemory value = value_row(args, kv_head, place);
        float elements[kColumns];
        load_vector<kKvType>(value.array, value.first + vector * kColumns, elements);
#pragma unroll
        for (int head = 0; head < kRows; ++head) {
          const float weight = shared.weights[head][t];
#pragma unroll
          for (int i = 0; i < kColumns; ++i) {
            sums[head][i] += weight * elements[i];
          }
        }
      }
#pragma unroll
      for (int head = 0; head < kRows; ++head) {
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          shared.sums[slice][head][vector * kColumns + i] = sums[head][i];
        }
      }
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < heads * kValueDim; i += kThreads) {
    const int head = i / kValueDim, column = i % kValueDim;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < Shape::kSlices; ++s) {
      sum += shared.sums[s][head][column];
    }
    partial_sums(args, row_index, first_head + head, chunk.index)[column] = sum;
  }
}

/// Attention of the group over a chunk of all that a row sees.
__device__ __forceinline__ void attend_chunk(const Args& args, const Row& row, int row_index, int kv_head,
                                             const Chunk& chunk) {
  constexpr int kHeadsAtOnce = ChunkShape::kHeadsAtOnce;
  auto& shared = *reinterpret_cast<DenseShared*>(dynamic_shared);
  load_places(args, row, chunk, shared.places);
#pragma unroll 1
  for (int done = 0; done < kGroup; done += kHeadsAtOnce) {
    const int head = kv_head * kGroup + done, heads = min(kHeadsAtOnce, kGroup - done);
    load_queries(args, row_index, head, heads, shared.queries);
    __syncthreads();
    make_logits(args, kv_head, chunk.tokens, shared);
    __syncthreads();
    make_weights(args, row_index, head, heads, chunk, shared);
    __syncthreads();
    sum_values(args, row_index, kv_head, head, heads, chunk, shared);
    __syncthreads();
  }
}

}  // namespace adamas_cuda
