// Keys of which each lane has kLaneElements neighbours, so that little of their transform crosses lanes. A warp
// takes kSlotsPerWarp keys at a time and copies the next ones to shared memory meanwhile: what one lane reads
// of a key does not lie beside what the others read, and loads of that would be many times as many as copies.
#pragma once

#include "templates/cuda/codes.cuh"
#include "templates/cuda/copy_async.cuh"

namespace adamas_cuda {

constexpr int kLanesOfKey = kKeysInLanes ? kHeadDim / kLaneElements : 1;
constexpr int kLaneWords = kLaneElements / kWarp;
constexpr int kLaneVectors = kLaneElements / 8;
constexpr int kCopiedBytes = 16;
constexpr int kLaneBytes = kLaneElements * static_cast<int>(sizeof(RawElement<kKvType>));
constexpr int kLaneCopies = kLaneBytes / kCopiedBytes;
constexpr int kLanePitch = kLaneBytes + kCopiedBytes;  ///< neighbouring lanes read from other banks
constexpr int kLaneStages = 2;
static_assert(kLaneWords <= 2);
static_assert(!kKeysInLanes || kLanesOfKey * kSlotsPerWarp == kWarp, "the generator and the template disagree");

constexpr int kStageBytes = kWarp * kLanePitch;
static_assert(!kKeysInLanes || kEncodeWarps * kLaneStages * kStageBytes == kEncodeSharedBytes,
              "the generator and the template disagree about shared memory");

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// The float after `value`; a NaN after infinity.
__device__ __forceinline__ float next_above(float value) {
  const unsigned bits = __float_as_uint(value);
  if (value == 0.0f) return __uint_as_float(1);
  return __uint_as_float(value > 0.0f ? bits + 1 : bits - 1);
}

/// The largest float whose product with kHadamardNorm is not above `threshold`: elements above it, and no
/// others, are above the threshold once they have been scaled. Rounding keeps order, so there is one.
__device__ __forceinline__ float threshold_before_scale(float threshold) {
  // -0 would make a difference of -0 from 0.
  float bound = __fadd_rn(__fdiv_rn(threshold, kHadamardNorm), 0.0f);
  while (__fmul_rn(bound, kHadamardNorm) > threshold) {
    bound = -next_above(-bound);
  }
  while (__fmul_rn(next_above(bound), kHadamardNorm) <= threshold) {
    bound = next_above(bound);
  }
  return __fadd_rn(bound, 0.0f);
}

/// `bits` moved up by one, and below them the sign of `value`. For bound - x that is x > bound, half as many
/// instructions as a comparison and its bit: differences of different numbers are not 0, those of equal ones
/// are +0, and a NaN that the hardware makes has no sign.
__device__ __forceinline__ unsigned append_sign(unsigned bits, float value) {
  return __funnelshift_l(__float_as_uint(value), bits, 1);
}

/// Begins to copy the elements of all lanes; this one's are at `mine`, or zeros where there is no such key.
/// Neighbouring lanes copy neighbouring bytes: with fewer addresses a lane, which meant more lines a copy, all
/// took longer.
__device__ __forceinline__ void begin_keys(const void* mine, bool exists, unsigned char* stage) {
  const unsigned existing = __ballot_sync(kAllLanes, exists);
#pragma unroll
  for (int i = 0; i < kLaneCopies; ++i) {
    const int copy = i * kWarp + lane_index(), lane = copy / kLaneCopies, part = copy % kLaneCopies;
    const auto* const from = static_cast<const unsigned char*>(address_of_lane(mine, lane));
    copy_async_or_zeros(stage + lane * kLanePitch + part * kCopiedBytes, from + part * kCopiedBytes,
                        (existing >> lane & 1u) != 0);
  }
}

/// This lane's elements of a copied key.
__device__ __forceinline__ void read_lane(const unsigned char* stage, float (&x)[kLaneElements]) {
  const auto* const raw = reinterpret_cast<const RawVector<kKvType>*>(stage + lane_index() * kLanePitch);
#pragma unroll
  for (int v = 0; v < kLaneVectors; ++v) {
    float eight[8];
    widen_vector<kKvType>(raw[v], eight);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x[v * 8 + i] = eight[i];
    }
  }
}

/// Planes of word `word` of the lane's elements: a code counts the bounds below its element, here 32 counts at
/// once, a bit a plane.
__device__ __forceinline__ void planes_of_word(const float (&x)[kLaneElements], int word,
                                               const float (&bounds)[kBuckets - 1],
                                               unsigned (&planes)[kPlanes]) {
#pragma unroll
  for (unsigned& plane : planes) {
    plane = 0;
  }
#pragma unroll
  for (const float bound : bounds) {
    unsigned carry = 0;
#pragma unroll
    for (int e = kWarp - 1; e >= 0; --e) {
      carry = append_sign(carry, __fsub_rn(bound, x[word * kWarp + e]));
    }
#pragma unroll
    for (unsigned& plane : planes) {
      const unsigned both = plane & carry;
      plane ^= carry;
      carry = both;
    }
  }
}

/// Encodes the warp's keys: those of its first item on, then as many of each turn of the whole grid.
/// @return how many keys there were
__device__ __forceinline__ unsigned encode_in_lanes(const Args& args, int kv_head, unsigned& status) {
  unsigned char* const stages = dynamic_shared + warp_index() * (kLaneStages * kStageBytes);
  const int part = lane_index() % kLanesOfKey;
  const i64 turn = static_cast<i64>(gridDim.x) * kEncodeWarps * kSlotsPerWarp;
  const auto begin = [&](i64 first, i64 stage) {
    const Place place = place_of_key(args, first + lane_index() / kLanesOfKey, status);
    const RowInMemory key = key_row(args, kv_head, place);
    const void* const mine =
        static_cast<const RawElement<kKvType>*>(key.array) + key.first + part * kLaneElements;
    begin_keys(mine, place.page >= 0, stages + stage * kStageBytes);
    return place;
  };
  // The same for all warps of a block: what lanes do together then needs no care.
  const i64 before = static_cast<i64>(blockIdx.x) * kEncodeWarps * kSlotsPerWarp;
  i64 first = first_item();
  Place next = begin(first, 0);
  end_copies();
  float bounds[kBuckets - 1];
  const float mine = threshold_before_scale(
      args.key_thresholds[kv_head * (kBuckets - 1) + min(lane_index(), kBuckets - 2)]);
#pragma unroll
  for (int t = 0; t < kBuckets - 1; ++t) {
    bounds[t] = __shfl_sync(kAllLanes, mine, t);
  }
  const float factor = kScaled ? key_scale(args, kv_head) : 1.0f;
  unsigned encoded = 0;
#pragma unroll 1
  for (i64 left = args.count - before, stage = 0; left > 0; stage ^= 1) {
    const Place place = next;
    first += turn;
    left -= turn;
    if (left > 0) next = begin(first, stage ^ 1);
    end_copies();
    wait_for_copies<kLaneStages - 1>();
    __syncwarp();
    float x[kLaneElements];
    read_lane(stages + stage * kStageBytes, x);
    __syncwarp();  // the stage is free for the keys after the next ones
    if constexpr (kScaled) scale(x, factor);
    rotate_in_lanes(x);
    const bool exists = place.page >= 0;
    unsigned* const words = code_words(args, kv_head, place) + part * kLaneWords;
    unsigned planes[kLaneWords][kPlanes];
#pragma unroll
    for (int word = 0; word < kLaneWords; ++word) {
      planes_of_word(x, word, bounds, planes[word]);
    }
#pragma unroll
    for (int plane = 0; plane < kPlanes; ++plane) {
      if (!exists) continue;
      unsigned* const to = plane_of(args, words, plane);
      if constexpr (kLaneWords == 2) {
        *reinterpret_cast<uint2*>(to) = {planes[0][plane], planes[1][plane]};
      } else {
        *to = planes[0][plane];
      }
    }
    encoded += static_cast<unsigned>(__popc(__ballot_sync(kAllLanes, exists && part == 0)));
  }
  return encoded;
}

}  // namespace adamas_cuda
