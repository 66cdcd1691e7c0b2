// encode: stored keys -> codes. A warp rotates, bucketizes and packs kSlotsPerWarp keys of one K/V head: all
// at once where the Spec allows, see encode_lanes.cuh; else one after the other.
// export_codes, import_codes: codes <-> one byte an element.
#pragma once

#include "templates/cuda/encode_lanes.cuh"

namespace adamas_cuda {

/// Encodes the warp's keys one after the other.
/// @return how many keys there were
__device__ __forceinline__ unsigned encode_in_turn(const Args& args, int kv_head,
                                                   const float (&thresholds)[kBuckets - 1], float* scratch,
                                                   unsigned& status) {
  const float factor = kScaled ? key_scale(args, kv_head) : 1.0f;
  unsigned encoded = 0;
  Place next_place = place_of_key(args, first_item(), status);
  float next[kWords];
  load_key(key_row(args, kv_head, next_place), next_place.page >= 0, next);
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
      load_key(key_row(args, kv_head, next_place), next_place.page >= 0, next);
    }
    if (place.page < 0) continue;  // the same in every lane
    unsigned codes[kWords];
    codes_of_key(x, factor, thresholds, scratch, codes);
    store_codes(args, kv_head, place, codes);
    ++encoded;
  }
  return encoded;
}

/// Grid: x = blocks of kEncodeWarps * kSlotsPerWarp slots, y = K/V head. With keys in lanes, blocks of
/// several times as many, in turn.
extern "C" __global__ void __launch_bounds__(kEncodeThreads, kEncodeBlocks)
    adamas_encode(const __grid_constant__ Args args) {
  let_next_kernel_start();
  const int kv_head = static_cast<int>(blockIdx.y);
  unsigned status = 0, encoded = 0;
  if constexpr (kKeysInLanes) {
    encoded = encode_in_lanes(args, kv_head, status);
  } else {
    __shared__ float scratch[kEncodeWarps][kRotateScratch];
    float thresholds[kBuckets - 1];
    load_thresholds(args.key_thresholds, kv_head, thresholds);
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

/// Grid: x = blocks of kEncodeWarps * kSlotsPerWarp slots, y = K/V head.
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

/// Grid as adamas_export_codes. A byte's code is its value mod kBuckets.
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
