// encode: stored keys -> codes. A warp rotates, bucketizes and packs kSlotsPerWarp keys of one K/V head.
// export_codes, import_codes: codes <-> one byte an element.
#pragma once

#include "templates/cuda/codes.cuh"

namespace adamas_cuda {

constexpr int kEncodeWarps = kEncodeThreads / kWarp;

/// First item of this warp in a call over slots.
__device__ __forceinline__ i64 first_item() {
  return (static_cast<i64>(blockIdx.x) * kEncodeWarps + warp_index()) * kSlotsPerWarp;
}

/// Grid: x = blocks of kEncodeWarps * kSlotsPerWarp slots, y = K/V head.
extern "C" __global__ void __launch_bounds__(kEncodeThreads)
    adamas_encode(const __grid_constant__ Args args) {
  __shared__ float scratch[kEncodeWarps][kRotateScratch];
  const int kv_head = static_cast<int>(blockIdx.y);
  float thresholds[kBuckets - 1];
  load_thresholds(args.key_thresholds, kv_head, thresholds);

  // All keys are on their way before the first is used.
  unsigned status = 0;
  Place places[kSlotsPerWarp];
  float x[kSlotsPerWarp][kWords];
#pragma unroll
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    places[s] = place_of_item(args, first_item() + s, status);
    const i64 row = places[s].page * args.key_page_stride + places[s].token * args.key_token_stride +
                    kv_head * args.key_head_stride;
#pragma unroll
    for (int j = 0; j < kWords; ++j) {
      const bool wanted = places[s].page >= 0 && holds_element(j);
      x[s][j] = wanted ? load_element<kKvType>(args.keys, row + j * kWarp + lane_index()) : 0.0f;
    }
  }

  unsigned encoded = 0;
#pragma unroll
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    if (places[s].page < 0) continue;  // the same in every lane
    unsigned codes[kWords];
    rotate(x[s], scratch[warp_index()]);
    bucketize(x[s], thresholds, codes);
    store_codes(args, kv_head, places[s], codes);
    ++encoded;
  }
  if (lane_index() == 0 && args.counters != nullptr) {
    report(args, status);
    if (encoded != 0) count(args.counters->tokens_encoded, encoded);
  }
}

/// Grid as adamas_encode.
extern "C" __global__ void __launch_bounds__(kEncodeThreads)
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
extern "C" __global__ void __launch_bounds__(kEncodeThreads)
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
