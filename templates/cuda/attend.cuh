// attend: a chunk of a row's tokens -> partial softmax sums. A block takes one chunk, and all query heads
// that share its tokens, so that K and V are read once: those of a list, or the whole group for rows that
// attend to all they see.
#pragma once

#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kAttendWarps = kThreads / kWarp;

/// How the threads of a block share a chunk of a row that attends to all. More heads than kMostHeadsAtOnce
/// are taken in passes, so that their sums fit the registers; later passes find keys and values in a cache.
struct AttendShape {
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

struct alignas(16) AttendShared {
  using Shape = AttendShape;
  union {
    float queries[Shape::kHeadsAtOnce][kHeadDim];                // while logits are made
    float sums[Shape::kSlices][Shape::kHeadsAtOnce][kValueDim];  // while slices are added
  };
  float weights[Shape::kHeadsAtOnce][kDenseChunk];  ///< logits, then weights
  Place places[kDenseChunk];                        ///< nowhere: a token that is left out
};

/// The same for a chunk of a list.
struct alignas(16) ListShared {
  PassQueries queries;
  float strands[kListHeadsAtOnce][kStrands][kPartialFloats];
};

static_assert((sizeof(AttendShared) > sizeof(ListShared) ? sizeof(AttendShared) : sizeof(ListShared)) ==
                  kAttendSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// Consecutive tokens of a row that attends to all.
struct Chunk {
  int index;  ///< chunk of the row, in ascending order of position
  int first;  ///< position
  int tokens;
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
  if (threadIdx.x == 0 && args.counters != nullptr) {
    count(args.counters->tokens_attended, chunk.tokens * kGroup);
  }
}

/// Logits of all heads and tokens.
__device__ __forceinline__ void make_logits(const Args& args, int kv_head, int tokens, AttendShared& shared) {
  using Shape = AttendShape;
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
                                             const Chunk& chunk, AttendShared& shared) {
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
                                           int heads, const Chunk& chunk, AttendShared& shared) {
  using Shape = AttendShape;
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
  constexpr int kHeadsAtOnce = AttendShape::kHeadsAtOnce;
  auto& shared = *reinterpret_cast<AttendShared*>(dynamic_shared);
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

/// Tokens that a query head attends to as a list.
struct List {
  const int* positions;  ///< or null: all that the row sees
  int tokens;
};

/// Place of an entry of a list. Entries that the row does not see are nowhere.
__device__ __forceinline__ Place place_of_entry(const Places& places, const Row& row, const List& list,
                                                int entry, unsigned& status) {
  if (entry >= list.tokens) return {-1, 0};
  const int position = list.positions == nullptr ? row.first + entry : __ldg(list.positions + entry);
  if (position >= row.first && position <= row.own) {
    return place_of_rows(places, slot_index(places, position, status), status);
  }
  status |= adamas_abi::kBadPosition;
  return {-1, 0};
}

/// Attention of the heads that share a list over its chunk `index`.
__device__ __forceinline__ void attend_list(const Args& args, const Row& row, int row_index, int kv_head,
                                            int first_head, const List& list, int index) {
  auto& shared = *reinterpret_cast<ListShared*>(dynamic_shared);
  unsigned status = 0, attended = 0;
  const Places places = places_of_sequence(args, row.sequence, status);
#pragma unroll 1
  for (int done = 0; done < kHeadsPerList; done += kListHeadsAtOnce) {
    load_pass_queries(args, row_index, first_head, done, static_cast<int>(threadIdx.x), kThreads,
                      shared.queries);
    __syncthreads();
#pragma unroll 1
    for (int number = warp_index(); number < kStrands; number += kAttendWarps) {
      Strand strand;
      clear(strand);
#pragma unroll 1
      for (int quad = 0; quad < kQuadsPerStrand; ++quad) {
        QuadRows rows;
        const Place place =
            place_of_entry(places, row, list, index * kChunk + token_of_quad(number, quad), status);
        load_quad(args, kv_head, place, rows);
        add_quad(args, shared.queries[0], rows, strand);
        if (done == 0 && place.page >= 0) ++attended;
      }
#pragma unroll
      for (int head = 0; head < kListHeadsAtOnce; ++head) {
        store_strand(strand, head, shared.strands[head][number]);
      }
    }
    __syncthreads();
    const int heads = min(kListHeadsAtOnce, kHeadsPerList - done);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < heads * kValueDim; i += kThreads) {
      const int head = i / kValueDim, column = i % kValueDim;
      const Merged merged = merge_partials(shared.strands[head][0], kPartialFloats, kStrands, column);
      float* partial = partial_sums(args, row_index, first_head + done + head, index);
      partial[column] = merged.sum;
      if (column == 0) {
        partial[kValueDim] = merged.largest;
        partial[kValueDim + 1] = merged.weights;
      }
    }
    __syncthreads();
  }
  report(args, status);
  if (args.counters != nullptr && attended != 0 && lane_index() % kRowLanes == 0) {
    count(args.counters->tokens_attended, attended * kHeadsPerList);
  }
}

/// Grid: x = chunk, y = selection, z = row. In a row that attends to all, which has one list for the whole
/// group, the blocks of the group's selections take turns at its chunks.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_attend(const __grid_constant__ Args args) {
  const int selection = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const int kv_head = selection / kSelectionsPerKvHead;
  const Row row = load_row(args, row_index);
  if (has_dense_chunks(args, row)) {
    const i64 index = static_cast<i64>(blockIdx.x) * kSelectionsPerKvHead + selection % kSelectionsPerKvHead;
    const i64 begin = index * kDenseChunk;
    if (begin >= row.visible || index >= args.chunks) return;
    const int first = static_cast<int>(begin);
    attend_chunk(args, row, row_index, kv_head,
                 {static_cast<int>(index), row.first + first, min(kDenseChunk, row.visible - first)});
  } else {
    const int index = static_cast<int>(blockIdx.x);
    List list = {nullptr, row.visible};
    if (!attends_to_all(args, row)) {
      const i64 number = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
      list = {args.positions + number * kBudget, selected_tokens(args, row_index, selection)};
    }
    if (index * kChunk >= list.tokens) return;
    attend_list(args, row, row_index, kv_head, selection * kHeadsPerList, list, index);
  }
}

}  // namespace adamas_cuda
