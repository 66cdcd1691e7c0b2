// encode: stored keys -> codes. A warp rotates, bucketizes and packs kSlotsPerWarp keys of one K/V head: all
// at once, a word of a key in each lane, where the Spec allows, and then as many again while there are any;
// else one after the other.
// export_codes, import_codes: codes <-> one byte an element.
#pragma once

#include "templates/cuda/codes.cuh"

namespace adamas_cuda {

constexpr int kEncodeWarps = kEncodeThreads / kWarp;
constexpr int kEncodeBlocksPerProcessor = kKeysInLanes ? 3 : 1;  ///< enough to hide a key's way from memory

/// First item of this warp in a call over slots.
__device__ __forceinline__ i64 first_item() {
  return (static_cast<i64>(blockIdx.x) * kEncodeWarps + warp_index()) * kSlotsPerWarp;
}

/// Place of a key of the call: of an item whose page has memory.
__device__ __forceinline__ Place place_of_key(const Args& args, i64 item, unsigned& status) {
  Place place = place_of_item(args, item, status);
  if constexpr (kPointers) {
    if (place.page >= 0 && __ldg(args.page_addresses + place.page) == 0) place.page = -1;
  }
  return place;
}

/// A stored key, padding 0; all 0 for a place that is nowhere.
__device__ __forceinline__ void load_key(const Args& args, int kv_head, Place place, float (&x)[kWords]) {
  const RowInMemory row = key_row(args, kv_head, place);
#pragma unroll
  for (int j = 0; j < kWords; ++j) {
    const bool wanted = place.page >= 0 && holds_element(j);
    x[j] = wanted ? load_element<kKvType>(row.array, row.first + j * kWarp + lane_index()) : 0.0f;
  }
}

/// `bits` moved up by one, and below them the sign of `value`. For bound - x that is x > bound, half as many
/// instructions as a comparison and its bit: differences of different numbers are not 0, those of equal ones
/// are +0, and a NaN that the hardware makes has no sign.
__device__ __forceinline__ unsigned append_sign(unsigned bits, float value) {
  return __funnelshift_l(__float_as_uint(value), bits, 1);
}

/// The next number that float32 has.
__device__ __forceinline__ float number_after(float value) {
  const unsigned bits = __float_as_uint(value);
  if (value == 0.0f) return __uint_as_float(1);
  return __uint_as_float(value > 0.0f ? bits + 1 : bits - 1);
}

/// The largest x whose product with kRotateNorm, rounded, is not above `threshold`: rounding keeps the order,
/// so x itself can be compared in place of the product.
__device__ __forceinline__ float threshold_before_norm(float threshold) {
  constexpr float kLargest = 3.402823466e38f;
  if (!(fabsf(threshold) <= kLargest)) return threshold;
  float x = __fdiv_rn(threshold, kRotateNorm);
#pragma unroll 1
  while (__fmul_rn(x, kRotateNorm) > threshold) {
    x = -number_after(-x);
  }
#pragma unroll 1
  while (__fmul_rn(number_after(x), kRotateNorm) <= threshold) {
    x = number_after(x);
  }
  return __fadd_rn(x, 0.0f);  // -0 would make a difference of -0 from 0
}

/// A lane's word of a key as it lies in memory.
struct RawWord {
  Place place;
  RawVector<kKvType> vectors[kWarp / 8];
};

/// Loads without waiting.
__device__ __forceinline__ void load_word(const Args& args, int kv_head, i64 item, RawWord& raw,
                                          unsigned& status) {
  raw.place = place_of_key(args, item, status);
#pragma unroll
  for (RawVector<kKvType>& vector : raw.vectors) {
    vector = {};
  }
  if (raw.place.page < 0) return;
  const RowInMemory key = key_row(args, kv_head, raw.place);
#pragma unroll
  for (int v = 0; v < kWarp / 8; ++v) {
    raw.vectors[v] = load_raw<kKvType>(key.array, key.first + lane_index() % kWords * kWarp + v * 8);
  }
}

/// Encodes kSlotsPerWarp keys at a time: lane kWords k + w has word w of key k.
/// @return how many keys there were
__device__ __forceinline__ unsigned encode_in_lanes(const Args& args, int kv_head, unsigned& status) {
  float bounds[kBuckets - 1];
  load_thresholds(args.key_thresholds, kv_head, bounds);
#pragma unroll
  for (float& bound : bounds) {
    bound = threshold_before_norm(bound);
  }
  const i64 step = static_cast<i64>(gridDim.x) * kEncodeWarps * kSlotsPerWarp;
  const int key = lane_index() / kWords;
  unsigned encoded = 0;
  RawWord next;
  load_word(args, kv_head, first_item() + key, next, status);
#pragma unroll 1
  for (i64 first = first_item(); first < args.count; first += step) {
    const Place place = next.place;
    float x[kWarp];
#pragma unroll
    for (int v = 0; v < kWarp / 8; ++v) {
      float eight[8];
      widen_vector<kKvType>(next.vectors[v], eight);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        x[v * 8 + i] = eight[i];
      }
    }
    // The next keys are on their way while these are worked on. Beyond the last there are none.
    load_word(args, kv_head, first + step + key, next, status);
    if constexpr (kScaled) {
      const float factor = key_scale(args, kv_head);
#pragma unroll
      for (float& element : x) {
        element = __fmul_rn(element, factor);
      }
    }
    rotate_in_lanes(x);
    // A code counts the thresholds below its element: here the 32 counts of a word at once, a bit a plane.
    unsigned planes[kPlanes] = {};
#pragma unroll
    for (const float bound : bounds) {
      unsigned carry = 0;
#pragma unroll
      for (int e = kWarp - 1; e >= 0; --e) {
        carry = append_sign(carry, __fsub_rn(bound, x[e]));
      }
#pragma unroll
      for (unsigned& plane : planes) {
        const unsigned both = plane & carry;
        plane ^= carry;
        carry = both;
      }
    }
    const bool exists = place.page >= 0;
    if (exists) {
      unsigned* const words = code_words(args, kv_head, place) + lane_index() % kWords;
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        *plane_of(args, words, plane) = planes[plane];
      }
    }
    encoded += static_cast<unsigned>(__popc(__ballot_sync(kAllLanes, exists && lane_index() % kWords == 0)));
  }
  return encoded;
}

/// Encodes the warp's keys one after the other.
/// @return how many keys there were
__device__ __forceinline__ unsigned encode_in_turn(const Args& args, int kv_head,
                                                   const float (&thresholds)[kBuckets - 1], float* scratch,
                                                   unsigned& status) {
  unsigned encoded = 0;
  Place next_place = place_of_key(args, first_item(), status);
  float next[kWords];
  load_key(args, kv_head, next_place, next);
#pragma unroll 1
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    const Place place = next_place;
    float x[kWords];
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      x[j] = next[j];
    }
    if (s + 1 < kSlotsPerWarp) {  // the next key is on its way while this one is worked on
      next_place = place_of_key(args, first_item() + s + 1, status);
      load_key(args, kv_head, next_place, next);
    }
    if (place.page < 0) continue;  // the same in every lane
    unsigned codes[kWords];
    if constexpr (kScaled) {
      const float factor = key_scale(args, kv_head);
#pragma unroll
      for (float& element : x) {
        element = __fmul_rn(element, factor);
      }
    }
    rotate(x, scratch);
    bucketize(x, thresholds, codes);
    store_codes(args, kv_head, place, codes);
    ++encoded;
  }
  return encoded;
}

/// Grid: x = blocks of kEncodeWarps * kSlotsPerWarp slots, or fewer of them where kKeysInLanes; y = K/V head.
extern "C" __global__ void __launch_bounds__(kEncodeThreads, kEncodeBlocksPerProcessor)
    adamas_encode(const __grid_constant__ Args args) {
  const int kv_head = static_cast<int>(blockIdx.y);
  unsigned status = 0, encoded = 0;
  if constexpr (kKeysInLanes) {
    encoded = encode_in_lanes(args, kv_head, status);
  } else {
    float thresholds[kBuckets - 1];
    load_thresholds(args.key_thresholds, kv_head, thresholds);
    __shared__ float scratch[kEncodeWarps][kRotateScratch];
    encoded = encode_in_turn(args, kv_head, thresholds, scratch[warp_index()], status);
  }
  if (args.counters == nullptr) return;
  report(args, status);
  // One addition a block: those to one counter are done one after the other.
  __shared__ unsigned all_encoded;
  if (threadIdx.x == 0) all_encoded = 0;
  __syncthreads();
  if (lane_index() == 0) atomicAdd(&all_encoded, encoded);
  __syncthreads();
  if (threadIdx.x == 0 && all_encoded != 0) count(args.counters->tokens_encoded, all_encoded);
}

/// Grid as adamas_encode.
extern "C" __global__ void __launch_bounds__(kEncodeThreads, 1)
    adamas_export_codes(const __grid_constant__ Args args) {
  const int kv_head = static_cast<int>(blockIdx.y);
  unsigned status = 0;
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    const i64 item = first_item() + s;
    const Place place = place_of_item(args, item, status);
    if (place.page < 0) continue;
    const unsigned* first = code_words(args, kv_head, place);
    unsigned char* bytes = args.bytes + (item * args.kv_heads + kv_head) * kHeadDim;
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      unsigned code = 0;
#pragma unroll
      for (int plane = 0; plane < kPlanes; ++plane) {
        code |= (plane_of(args, first, plane)[j] >> lane_index() & 1u) << plane;
      }
      if (holds_element(j)) bytes[j * kWarp + lane_index()] = static_cast<unsigned char>(code);
    }
  }
}

/// Grid as adamas_encode. A byte's code is its value mod kBuckets.
extern "C" __global__ void __launch_bounds__(kEncodeThreads, 1)
    adamas_import_codes(const __grid_constant__ Args args) {
  const int kv_head = static_cast<int>(blockIdx.y);
  unsigned status = 0;
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    const i64 item = first_item() + s;
    const Place place = place_of_item(args, item, status);
    if (place.page < 0) continue;
    const unsigned char* bytes = args.bytes + (item * args.kv_heads + kv_head) * kHeadDim;
    unsigned codes[kWords];
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      codes[j] = holds_element(j) ? bytes[j * kWarp + lane_index()] % kBuckets : 0;
    }
    store_codes(args, kv_head, place, codes);
  }
}

}  // namespace adamas_cuda
