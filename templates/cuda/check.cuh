// check_codes: codes made again from stored keys and compared with what is there; on request what differs is
// mended. Keys go through a warp one after the other, the rotation that works for every Spec: this is no step
// that anybody waits for.
#pragma once

#include "templates/cuda/encode.cuh"

namespace adamas_cuda {

/// Whether a token's stored codes are others than `codes`. The same in every lane.
__device__ __forceinline__ bool codes_differ(const Args& args, int kv_head, Place place,
                                             const unsigned (&codes)[kWords]) {
  const unsigned* first = code_words(args, kv_head, place);
  bool differ = false;
#pragma unroll
  for (int plane = 0; plane < kPlanes; ++plane) {
    const unsigned word = plane_words(codes, plane);
    if (lane_index() < kWords) differ = differ || plane_of(args, first, plane)[lane_index()] != word;
  }
  return __ballot_sync(kAllLanes, differ) != 0;
}

/// Grid as adamas_encode. Slots that encode skips are not checked, and say 0.
extern "C" __global__ void __launch_bounds__(kEncodeThreads, 1)
    adamas_check_codes(const __grid_constant__ Args args) {
  __shared__ float scratch[kEncodeWarps][kRotateScratch];
  const int kv_head = static_cast<int>(blockIdx.y);
  float thresholds[kBuckets - 1];
  load_thresholds(args.key_thresholds, kv_head, thresholds);
  unsigned status = 0, checked = 0, stale = 0;
#pragma unroll 1
  for (int s = 0; s < kSlotsPerWarp; ++s) {
    const i64 item = first_item() + s;
    const Place place = place_of_key(args, item, status);
    bool differ = false;
    if (place.page >= 0) {  // the same in every lane
      float x[kWords];
      load_key(key_row(args, kv_head, place), true, x);
      unsigned codes[kWords];
      codes_of_key(x, kScaled ? key_scale(args, kv_head) : 1.0f, thresholds, scratch[warp_index()], codes);
      differ = codes_differ(args, kv_head, place, codes);
      if (differ && args.mend != 0) store_codes(args, kv_head, place, codes);
      ++checked;
      stale += differ ? 1 : 0;
    }
    if (args.bytes != nullptr && item < args.count && lane_index() == 0) {
      args.bytes[item * args.kv_heads + kv_head] = differ ? 1 : 0;
    }
  }
  if (args.counters == nullptr || lane_index() != 0) return;
  report(args, status);
  if (checked != 0) count(args.counters->tokens_checked, checked);
  if (stale != 0) count(args.counters->tokens_stale, stale);
}

}  // namespace adamas_cuda
