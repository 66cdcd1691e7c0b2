// Attention over listed tokens, in an order that Spec and Tuning fix, whatever launch does it: a list is cut
// into chunks of kChunk tokens, a chunk into quads of 4 tokens, and quads are dealt to kStrands strands. A
// warp works through a strand; the strands of a chunk are added in order, then the chunks of a list in
// theirs.
#pragma once

#include "templates/cuda/element.cuh"
#include "templates/cuda/partial.cuh"
#include "templates/cuda/place.cuh"

namespace adamas_cuda {

constexpr int kHeadsPerList = kGroup / kSelectionsPerKvHead;  ///< query heads that share a list
constexpr int kStrands = 8;
constexpr int kQuad = 4;
constexpr int kQuadsPerStrand = kChunk / (kQuad * kStrands);
static_assert(kChunk % (kQuad * kStrands) == 0, "the strands of a chunk have equally many quads");

constexpr int kRowLanes = kWarp / kQuad;  ///< lanes that share a K or V row
constexpr int kVectorElements = 8;        ///< that a lane loads together
constexpr int kKeyVectors = kHeadDim / kVectorElements, kValueVectors = kValueDim / kVectorElements;
constexpr int kKeyVectorsPerLane = (kKeyVectors + kRowLanes - 1) / kRowLanes;
constexpr int kValueVectorsPerLane = (kValueVectors + kRowLanes - 1) / kRowLanes;
/// Query heads are taken in passes of at most 4: sums of more would not fit the registers.
constexpr int kListPasses = (kHeadsPerList + 3) / 4;
constexpr int kListHeadsAtOnce = (kHeadsPerList + kListPasses - 1) / kListPasses;

/// float32 queries of a pass, times the scale of the keys; zeros for what the last one has too many.
using PassQueries = float[kListHeadsAtOnce][kHeadDim];

/// The queries of heads done .. of the list whose heads begin at `first_head`. By `threads` threads, of which
/// this is number `thread`; a barrier must follow.
__device__ __forceinline__ void load_pass_queries(const Args& args, int row_index, int first_head, int done,
                                                  int thread, int threads, PassQueries& queries) {
#pragma unroll 1
  for (int i = thread; i < kListHeadsAtOnce * kHeadDim; i += threads) {
    const int head = done + i / kHeadDim, element = i % kHeadDim;
    const i64 query = row_index * args.query_row_stride + (first_head + head) * args.query_head_stride;
    float value = head < kHeadsPerList ? load_element<kQueryType>(args.query, query + element) : 0.0f;
    if constexpr (kScaled) value *= key_scale(args, first_head / kGroup);
    queries[i / kHeadDim][element] = value;
  }
}

/// Token of a chunk that this lane has in quad `quad` of a strand.
__device__ __forceinline__ int token_of_quad(int strand, int quad) {
  return (quad * kStrands + strand) * kQuad + lane_index() / kRowLanes;
}

/// K and V rows of a quad as they lie in memory: lane 8 t + l has vectors l, l + 8, ... of token t.
struct QuadRows {
  RawVector<kKvType> key[kKeyVectorsPerLane];
  RawVector<kKvType> value[kValueVectorsPerLane];
  bool token;  ///< whether this lane's token exists
};

/// Loads without waiting. Nothing is read for a place that is nowhere.
__device__ __forceinline__ void load_quad(const Args& args, int kv_head, Place place, QuadRows& rows) {
  const int first = lane_index() % kRowLanes;
  rows.token = place.page >= 0;
  const RowInMemory key = key_row(args, kv_head, place), value = value_row(args, kv_head, place);
#pragma unroll
  for (int v = 0; v < kKeyVectorsPerLane; ++v) {
    const int vector = first + v * kRowLanes;
    const bool wanted = rows.token && (kKeyVectors % kRowLanes == 0 || vector < kKeyVectors);
    rows.key[v] =
        wanted ? load_raw<kKvType>(key.array, key.first + vector * kVectorElements) : RawVector<kKvType>{};
  }
#pragma unroll
  for (int v = 0; v < kValueVectorsPerLane; ++v) {
    const int vector = first + v * kRowLanes;
    const bool wanted = rows.token && (kValueVectors % kRowLanes == 0 || vector < kValueVectors);
    rows.value[v] = wanted ? load_raw<kKvType>(value.array, value.first + vector * kVectorElements)
                           : RawVector<kKvType>{};
  }
}

/// What a strand has added up so far, for kListHeadsAtOnce query heads. Sums and weights are of this lane's
/// token of each quad; `largest` is common to the warp.
struct Strand {
  float largest[kListHeadsAtOnce];
  float weights[kListHeadsAtOnce];
  float sums[kListHeadsAtOnce][kValueVectorsPerLane * kVectorElements];
};

__device__ __forceinline__ void clear(Strand& strand) {
#pragma unroll
  for (int head = 0; head < kListHeadsAtOnce; ++head) {
    strand.largest[head] = negative_infinity();
    strand.weights[head] = 0.0f;
#pragma unroll
    for (float& sum : strand.sums[head]) {
      sum = 0.0f;
    }
  }
}

/// Logit of a dot product q.k.
__device__ __forceinline__ float logit_of(const Args& args, float dot) {
  const float logit = dot * args.scale;
  if constexpr (kSoftCap) return args.soft_cap * tanhf(logit / args.soft_cap);
  return logit;
}

/// q.k of this lane's token, the same in all lanes of the row.
__device__ __forceinline__ float dot_product(const float* query, const QuadRows& rows) {
  float even = 0.0f, odd = 0.0f;
#pragma unroll
  for (int v = 0; v < kKeyVectorsPerLane; ++v) {
    const int vector = lane_index() % kRowLanes + v * kRowLanes;
    if (kKeyVectors % kRowLanes != 0 && vector >= kKeyVectors) continue;
    float key[kVectorElements];
    widen_vector<kKvType>(rows.key[v], key);
    const float* q = query + vector * kVectorElements;
#pragma unroll
    for (int i = 0; i < kVectorElements; i += 2) {
      even += q[i] * key[i];
      odd += q[i + 1] * key[i + 1];
    }
  }
  return sum_over_lanes<kRowLanes>(even + odd);
}

/// Largest of a value over the tokens of a quad.
__device__ __forceinline__ float max_over_quad(float value) {
#pragma unroll
  for (int distance = kRowLanes; distance < kWarp; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

__device__ __forceinline__ float sum_over_quad(float value) {
#pragma unroll
  for (int distance = kRowLanes; distance < kWarp; distance *= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

/// Adds a quad to a strand.
/// @param queries  [heads][kHeadDim], float32 in shared memory
__device__ __forceinline__ void add_quad(const Args& args, const float* queries, const QuadRows& rows,
                                         Strand& strand) {
#pragma unroll
  for (int head = 0; head < kListHeadsAtOnce; ++head) {
    const float dot = dot_product(queries + head * kHeadDim, rows);
    const float logit = rows.token ? logit_of(args, dot) : negative_infinity();
    const float largest = fmaxf(strand.largest[head], max_over_quad(logit));
    const float base = exponent_base(largest);
    const float factor = __expf(strand.largest[head] - base);
    const float weight = rows.token ? __expf(logit - base) : 0.0f;
    strand.largest[head] = largest;
    strand.weights[head] = strand.weights[head] * factor + weight;
#pragma unroll
    for (int v = 0; v < kValueVectorsPerLane; ++v) {
      float value[kVectorElements];
      widen_vector<kKvType>(rows.value[v], value);
#pragma unroll
      for (int i = 0; i < kVectorElements; ++i) {
        float& sum = strand.sums[head][v * kVectorElements + i];
        sum = sum * factor + weight * value[i];
      }
    }
  }
}

/// Adds two lanes' values, `distance` apart, for two columns at once: a lane gets that of `upper` where bit
/// `distance` of its index is set, else that of `lower`.
__device__ __forceinline__ float exchange_halves(float lower, float upper, int distance) {
  const bool is_upper = (lane_index() & distance) != 0;
  const float sent = is_upper ? lower : upper, kept = is_upper ? upper : lower;
  return kept + __shfl_xor_sync(kAllLanes, sent, distance);
}

/// Writes a strand's partial sums (value_dim sums, the largest logit, the sum of weights) of one head. Each
/// token's lanes end up with two of a vector's columns.
__device__ __forceinline__ void store_strand(const Strand& strand, int head, float* partial) {
  const float weights = sum_over_quad(strand.weights[head]);
#pragma unroll
  for (int v = 0; v < kValueVectorsPerLane; ++v) {
    const float* sums = strand.sums[head] + v * kVectorElements;
    float half[4], quarter[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      half[i] = exchange_halves(sums[i], sums[i + 4], 2 * kRowLanes);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      quarter[i] = exchange_halves(half[i], half[i + 2], kRowLanes);
    }
    const int vector = lane_index() % kRowLanes + v * kRowLanes;
    if (kValueVectors % kRowLanes != 0 && vector >= kValueVectors) continue;
    const int column = (lane_index() & 2 * kRowLanes) / 4 + (lane_index() & kRowLanes) / 4;
    *reinterpret_cast<float2*>(partial + vector * kVectorElements + column) = float2{quarter[0], quarter[1]};
  }
  if (lane_index() == 0) {
    partial[kValueDim] = strand.largest[head];
    partial[kValueDim + 1] = weights;
  }
}

/// Sums of one column, relative to the largest logit of all parts.
struct Merged {
  float sum, largest, weights;
};

/// Adds `count` partial sums in ascending order, `stride` floats apart, for one column.
__device__ __forceinline__ Merged merge_partials(const float* first, int stride, int count, int column) {
  Merged merged = {0.0f, negative_infinity(), 0.0f};
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    merged.largest = fmaxf(merged.largest, first[i * stride + kValueDim]);
  }
  const float base = exponent_base(merged.largest);
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    const float* partial = first + i * stride;
    const float factor = __expf(partial[kValueDim] - base);
    merged.sum += factor * partial[column];
    merged.weights += factor * partial[kValueDim + 1];
  }
  return merged;
}

/// Output and LSE of a query head from its merged sums: one thread a column, and column 0 writes the LSE.
__device__ __forceinline__ void store_output(const Args& args, int row_index, int query_head, int column,
                                             const Merged& merged) {
  const float base = exponent_base(merged.largest);
  float denominator = merged.weights;
  if constexpr (kSinkLogits) denominator += __expf(__ldg(args.sink_logits + query_head) - base);
  const i64 out = row_index * args.out_row_stride + query_head * args.out_head_stride;
  float value = merged.weights == 0.0f ? 0.0f : merged.sum / denominator;
  if constexpr (kScaled) value *= value_scale(args, query_head / kGroup);
  store_element<kOutType>(args.out, out + column, value);
  if constexpr (kLse) {
    const i64 index = static_cast<i64>(row_index) * args.kv_heads * kGroup + query_head;
    if (column == 0 && args.lse != nullptr) args.lse[index] = base + logf(merged.weights);
  }
}

}  // namespace adamas_cuda
