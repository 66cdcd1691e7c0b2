// attend: a chunk of a row's tokens -> partial softmax sums. A block takes one chunk, and all query heads
// that share its tokens: the whole group for dense rows and kv_head scope, so that K and V are read once; one
// head otherwise.
#pragma once

#include "templates/cuda/element.cuh"
#include "templates/cuda/partial.cuh"
#include "templates/cuda/place.cuh"

namespace adamas_cuda {

constexpr int kAttendWarps = kThreads / kWarp;
constexpr int kSparseHeads = kGroup / kSelectionsPerKvHead;  ///< query heads that share a list

/// How the threads of a block share the work of kHeads query heads. More heads than kMostHeadsAtOnce are
/// taken in passes, so that their sums fit the registers; later passes find keys and values in a cache.
template <int kHeads>
struct AttendShape {
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

template <int kHeads>
struct alignas(16) AttendShared {
  using Shape = AttendShape<kHeads>;
  union {
    float queries[Shape::kHeadsAtOnce][kHeadDim];                // while logits are made
    float sums[Shape::kSlices][Shape::kHeadsAtOnce][kValueDim];  // while slices are added
  };
  float weights[Shape::kHeadsAtOnce][kMostChunkTokens];  ///< logits, then weights
  Place places[kMostChunkTokens];
};

static_assert((sizeof(AttendShared<kSparseHeads>) > sizeof(AttendShared<kGroup>)
                   ? sizeof(AttendShared<kSparseHeads>)
                   : sizeof(AttendShared<kGroup>)) == kAttendSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// The tokens of one chunk.
struct Chunk {
  int index;        ///< chunk of the row, in ascending order of position
  int tokens;       ///< entries, bad ones included
  const int* list;  ///< their positions, or null: the row's positions from `first` on
  int first;
};

/// float32 queries of `heads` heads from `first_head` on; zeros for the rest of the pass.
template <int kHeadsAtOnce>
__device__ __forceinline__ void load_queries(const Args& args, int row_index, int first_head, int heads,
                                             float (&queries)[kHeadsAtOnce][kHeadDim]) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kHeadsAtOnce * kHeadDim; i += kThreads) {
    const int head = i / kHeadDim, element = i % kHeadDim;
    const i64 query = row_index * args.query_row_stride + (first_head + head) * args.query_head_stride;
    queries[head][element] = head < heads ? load_element<kQueryType>(args.query, query + element) : 0.0f;
  }
}

/// Looks up where the chunk's tokens lie. Positions that the row does not see are nowhere.
__device__ __forceinline__ void load_places(const Args& args, const Row& row, const Chunk& chunk, int heads,
                                            Place* places) {
  unsigned status = 0, attended = 0;
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < chunk.tokens; t += kThreads) {
    const int position = chunk.list == nullptr ? chunk.first + t : __ldg(chunk.list + t);
    if (position >= row.first && position <= row.own) {
      places[t] = place_of_position(args, row.sequence, position, status);
      ++attended;
    } else {
      places[t] = {-1, 0};
      status |= adamas_abi::kBadPosition;
    }
  }
  report(args, status);
  if (args.counters != nullptr && attended != 0) count(args.counters->tokens_attended, attended * heads);
}

/// Logit of a dot product q.k.
__device__ __forceinline__ float logit_of(const Args& args, float dot) {
  const float logit = dot * args.scale;
  if constexpr (kSoftCap) return args.soft_cap * tanhf(logit / args.soft_cap);
  return logit;
}

/// Logits of all heads and tokens, -inf for tokens that are nowhere.
template <int kHeads>
__device__ __forceinline__ void make_logits(const Args& args, int kv_head, int tokens,
                                            AttendShared<kHeads>& shared) {
  using Shape = AttendShape<kHeads>;
  constexpr int kTokensInFlight = Shape::kTokensInFlight;
  constexpr int kLanes = Shape::kKeyLanes, kTokensAtOnce = kThreads / kLanes, kRows = Shape::kHeadsAtOnce;
  const int part = static_cast<int>(threadIdx.x) % kLanes;
  // Every lane makes every round: lanes of a token add up by shuffles.
#pragma unroll kTokensInFlight
  for (int round = 0; round < tokens; round += kTokensAtOnce) {
    const int t = round + static_cast<int>(threadIdx.x) / kLanes;
    const Place place = t < tokens ? shared.places[t] : Place{-1, 0};
    // Tokens that are nowhere read the first row, so that no load waits for a branch; their logits are
    // dropped.
    const i64 key = max(place.page, 0) * args.key_page_stride + place.token * args.key_token_stride +
                    kv_head * args.key_head_stride;
    float dots[kRows] = {};
#pragma unroll
    for (int vector = part; vector < Shape::kKeyVectors; vector += kLanes) {
      float elements[8];
      load_vector<kKvType>(args.keys, key + vector * 8, elements);
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
        shared.weights[head][t] = place.page >= 0 ? logit_of(args, dot) : negative_infinity();
      }
    }
  }
}

/// Logits -> weights exp(logit - largest); writes the largest and the sum of weights to the partial sums. A
/// warp a head.
template <int kHeads>
__device__ __forceinline__ void make_weights(const Args& args, int row_index, int first_head, int heads,
                                             const Chunk& chunk, AttendShared<kHeads>& shared) {
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
template <int kHeads>
__device__ __forceinline__ void sum_values(const Args& args, int row_index, int kv_head, int first_head,
                                           int heads, const Chunk& chunk, AttendShared<kHeads>& shared) {
  using Shape = AttendShape<kHeads>;
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
        const i64 value = max(place.page, 0) * args.value_page_stride +
                          place.token * args.value_token_stride + kv_head * args.value_head_stride;
        float elements[kColumns];
        load_vector<kKvType>(args.values, value + vector * kColumns, elements);
        if (place.page < 0) continue;  // after the load, as above; a weight of 0 would not stop a NaN
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

/// Attention of kHeads query heads from `first_head` on over one chunk.
template <int kHeads>
__device__ __forceinline__ void attend_chunk(const Args& args, const Row& row, int row_index, int kv_head,
                                             int first_head, const Chunk& chunk) {
  constexpr int kHeadsAtOnce = AttendShape<kHeads>::kHeadsAtOnce;
  auto& shared = *reinterpret_cast<AttendShared<kHeads>*>(dynamic_shared);
  load_places(args, row, chunk, kHeads, shared.places);
#pragma unroll 1
  for (int done = 0; done < kHeads; done += kHeadsAtOnce) {
    const int head = first_head + done, heads = min(kHeadsAtOnce, kHeads - done);
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

/// Grid: x = chunk, y = selection, z = row. In a dense row, which has one list for the whole group, the
/// blocks of the group's selections take turns at its chunks.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_attend(const __grid_constant__ Args args) {
  const int selection = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const int kv_head = selection / kSelectionsPerKvHead;
  const Row row = load_row(args, row_index);
  const bool all = attends_to_all(args, row);
  Chunk chunk;
  if (all) {
    const i64 index = static_cast<i64>(blockIdx.x) * kSelectionsPerKvHead + selection % kSelectionsPerKvHead;
    const i64 begin = index * kDenseChunk;
    if (begin >= row.visible || index >= args.chunks) return;
    const int first = static_cast<int>(begin);
    chunk = {static_cast<int>(index), min(kDenseChunk, row.visible - first), nullptr, row.first + first};
  } else {
    const int index = static_cast<int>(blockIdx.x);
    const int tokens = selected_tokens(args, row_index, selection) - index * kChunk;
    if (tokens <= 0) return;
    const i64 list =
        (static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection) * kBudget;
    chunk = {index, min(kChunk, tokens), args.positions + list + index * kChunk, 0};
  }
  if constexpr (kSparseHeads == kGroup) {
    attend_chunk<kGroup>(args, row, row_index, kv_head, kv_head * kGroup, chunk);
  } else if (all) {
    attend_chunk<kGroup>(args, row, row_index, kv_head, kv_head * kGroup, chunk);
  } else {
    attend_chunk<kSparseHeads>(args, row, row_index, kv_head, selection * kSparseHeads, chunk);
  }
}

}  // namespace adamas_cuda
