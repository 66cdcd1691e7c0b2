// attend: a chunk of a row's tokens -> partial softmax sums. A block takes one chunk, and all query heads
// that share its tokens: the whole group for dense rows and kv_head scope, so that K and V are read once; one
// head otherwise.
#pragma once

#include "templates/cuda/element.cuh"
#include "templates/cuda/partial.cuh"
#include "templates/cuda/place.cuh"

namespace adamas_cuda {

constexpr int kAttendWarps = kThreads / kWarp;

/// How the threads of a block share the work, for kHeads query heads and up to kTokens tokens.
template <int kHeads, int kTokens>
struct AttendShape {
  // Keys: kKeyLanes lanes read a row in 16-byte vectors.
  static constexpr int kKeyVectors = kHeadDim / 8;
  static constexpr int kKeyLanes = kKeyVectors >= 32   ? 32
                                   : kKeyVectors >= 16 ? 16
                                   : kKeyVectors >= 8  ? 8
                                   : kKeyVectors >= 4  ? 4
                                                       : 2;
  // Values: a thread sums kColumns columns for every head, over every kSlices-th token.
  static constexpr int kColumns = kHeads <= 4 ? 8 : kHeads <= 8 ? 4 : 2;
  static constexpr int kValueVectors = kValueDim / kColumns;
  static constexpr int kValueLanes = kValueVectors < kThreads ? kValueVectors : kThreads;
  static constexpr int kSliceBytes = kHeads * kValueDim * static_cast<int>(sizeof(float));
  static constexpr int kSlicesThatFit =
      kAttendSliceBytes / kSliceBytes > 1 ? kAttendSliceBytes / kSliceBytes : 1;
  static constexpr int kSlicesOfThreads = kThreads / kValueLanes;
  static constexpr int kSlices = kSlicesOfThreads < kSlicesThatFit ? kSlicesOfThreads : kSlicesThatFit;
};

template <int kHeads, int kTokens>
struct alignas(16) AttendShared {
  using Shape = AttendShape<kHeads, kTokens>;
  union {
    float queries[kHeads][kHeadDim];                // while logits are made
    float sums[Shape::kSlices][kHeads][kValueDim];  // while slices are added
  };
  float weights[kHeads][kTokens];  ///< logits, then weights
  Place places[kTokens];
};

constexpr int kSparseHeads = kGroup / kSelectionsPerKvHead;  ///< query heads that share a list
using SparseShared = AttendShared<kSparseHeads, kChunk>;
using DenseShared = AttendShared<kGroup, kDenseChunk>;
static_assert((sizeof(SparseShared) > sizeof(DenseShared) ? sizeof(SparseShared) : sizeof(DenseShared)) ==
                  kAttendSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// The tokens of one chunk.
struct Chunk {
  int index;        ///< chunk of the row, in ascending order of position
  int tokens;       ///< entries, bad ones included
  const int* list;  ///< their positions, or null: the row's positions from `first` on
  int first;
};

/// float32 queries of kHeads heads from `first_head` on.
template <int kHeads>
__device__ __forceinline__ void load_queries(const Args& args, int row_index, int first_head,
                                             float (&queries)[kHeads][kHeadDim]) {
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * kHeadDim; i += kThreads) {
    const int head = i / kHeadDim, element = i % kHeadDim;
    queries[head][element] =
        load_element<kQueryType>(args.query, row_index * args.query_row_stride +
                                                 (first_head + head) * args.query_head_stride + element);
  }
}

/// Looks up where the chunk's tokens lie. Positions that the row does not see are nowhere.
__device__ __forceinline__ void load_places(const Args& args, const Row& row, const Chunk& chunk, int heads,
                                            Place* places) {
  unsigned status = 0, attended = 0;
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
template <int kHeads, int kTokens>
__device__ __forceinline__ void make_logits(const Args& args, int kv_head, int tokens,
                                            AttendShared<kHeads, kTokens>& shared) {
  using Shape = AttendShape<kHeads, kTokens>;
  constexpr int kLanes = Shape::kKeyLanes, kTokensAtOnce = kThreads / kLanes;
  const int part = static_cast<int>(threadIdx.x) % kLanes;
  // Every lane makes every round: lanes of a token add up by shuffles.
#pragma unroll 2
  for (int round = 0; round < tokens; round += kTokensAtOnce) {
    const int t = round + static_cast<int>(threadIdx.x) / kLanes;
    const Place place = t < tokens ? shared.places[t] : Place{-1, 0};
    // Tokens that are nowhere read the first row, so that no load waits for a branch; their logits are
    // dropped.
    const i64 key = max(place.page, 0) * args.key_page_stride + place.token * args.key_token_stride +
                    kv_head * args.key_head_stride;
    float dots[kHeads] = {};
#pragma unroll
    for (int vector = part; vector < Shape::kKeyVectors; vector += kLanes) {
      float elements[8];
      load_vector<kKvType>(args.keys, key + vector * 8, elements);
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        const float* query = &shared.queries[head][vector * 8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          dots[head] += query[i] * elements[i];
        }
      }
    }
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      const float dot = sum_over_lanes<kLanes>(dots[head]);
      if (part == 0 && t < tokens) {
        shared.weights[head][t] = place.page >= 0 ? logit_of(args, dot) : negative_infinity();
      }
    }
  }
}

/// Logits -> weights exp(logit - largest); writes the largest and the sum of weights to the partial sums. A
/// warp a head.
template <int kHeads, int kTokens>
__device__ __forceinline__ void make_weights(const Args& args, int row_index, int first_head,
                                             const Chunk& chunk, AttendShared<kHeads, kTokens>& shared) {
  for (int head = warp_index(); head < kHeads; head += kAttendWarps) {
    float* weights = shared.weights[head];
    float largest = negative_infinity();
    for (int t = lane_index(); t < chunk.tokens; t += kWarp) {
      largest = fmaxf(largest, weights[t]);
    }
    largest = max_over_warp(largest);
    const float base = exponent_base(largest);
    float sum = 0.0f;
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

/// Weighted sums of the value rows -> the partial sums of every head.
template <int kHeads, int kTokens>
__device__ __forceinline__ void sum_values(const Args& args, int row_index, int kv_head, int first_head,
                                           const Chunk& chunk, AttendShared<kHeads, kTokens>& shared) {
  using Shape = AttendShape<kHeads, kTokens>;
  constexpr int kColumns = Shape::kColumns;
  const int slice = static_cast<int>(threadIdx.x) / Shape::kValueLanes;
  if (slice < Shape::kSlices) {
    for (int vector = static_cast<int>(threadIdx.x) % Shape::kValueLanes; vector < Shape::kValueVectors;
         vector += Shape::kValueLanes) {
      float sums[kHeads][kColumns] = {};
#pragma unroll 4
      for (int t = slice; t < chunk.tokens; t += Shape::kSlices) {
        const Place place = shared.places[t];
        const i64 value = max(place.page, 0) * args.value_page_stride +
                          place.token * args.value_token_stride + kv_head * args.value_head_stride;
        float elements[kColumns];
        load_vector<kKvType>(args.values, value + vector * kColumns, elements);
        if (place.page < 0)
          continue;  // after the load, as above; its weight is 0, but the row read may hold a NaN
#pragma unroll
        for (int head = 0; head < kHeads; ++head) {
          const float weight = shared.weights[head][t];
#pragma unroll
          for (int i = 0; i < kColumns; ++i) {
            sums[head][i] += weight * elements[i];
          }
        }
      }
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          shared.sums[slice][head][vector * kColumns + i] = sums[head][i];
        }
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kHeads * kValueDim; i += kThreads) {
    const int head = i / kValueDim, column = i % kValueDim;
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < Shape::kSlices; ++s) {
      sum += shared.sums[s][head][column];
    }
    partial_sums(args, row_index, first_head + head, chunk.index)[column] = sum;
  }
}

/// Attention of kHeads query heads from `first_head` on over one chunk of at most kTokens tokens.
template <int kHeads, int kTokens>
__device__ __forceinline__ void attend_chunk(const Args& args, const Row& row, int row_index, int kv_head,
                                             int first_head, const Chunk& chunk) {
  auto& shared = *reinterpret_cast<AttendShared<kHeads, kTokens>*>(dynamic_shared);
  load_queries<kHeads>(args, row_index, first_head, shared.queries);
  load_places(args, row, chunk, kHeads, shared.places);
  __syncthreads();
  make_logits(args, kv_head, chunk.tokens, shared);
  __syncthreads();
  make_weights(args, row_index, first_head, chunk, shared);
  __syncthreads();
  sum_values(args, row_index, kv_head, first_head, chunk, shared);
}

/// Grid: x = chunk, y = selection, z = row. In a dense row, which has one list for the whole group, the
/// blocks of the group's selections take turns at its chunks.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_attend(const __grid_constant__ Args args) {
  const int selection = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const int kv_head = selection / kSelectionsPerKvHead;
  const Row row = load_row(args, row_index);
  if (attends_to_all(args, row)) {
    const i64 chunk = static_cast<i64>(blockIdx.x) * kSelectionsPerKvHead + selection % kSelectionsPerKvHead;
    const i64 begin = chunk * kDenseChunk;
    if (begin >= row.visible || chunk >= args.chunks) return;
    const int first = static_cast<int>(begin);
    attend_chunk<kGroup, kDenseChunk>(
        args, row, row_index, kv_head, kv_head * kGroup,
        {static_cast<int>(chunk), min(kDenseChunk, row.visible - first), nullptr, row.first + first});
  } else {
    const int chunk = static_cast<int>(blockIdx.x);
    const int tokens = selected_tokens(args, row_index, selection) - chunk * kChunk;
    if (tokens <= 0) return;
    const i64 list =
        (static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection) * kBudget;
    attend_chunk<kSparseHeads, kChunk>(
        args, row, row_index, kv_head, selection * kSparseHeads,
        {chunk, min(kChunk, tokens), args.positions + list + chunk * kChunk, 0});
  }
}

}  // namespace adamas_cuda
