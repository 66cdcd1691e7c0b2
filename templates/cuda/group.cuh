// Threads together: sums, maxima and prefix sums of a warp or a block, always in the same order.
#pragma once

namespace adamas_cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % kWarp); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / kWarp); }

/// The address that lane `lane` has.
__device__ __forceinline__ const void* address_of_lane(const void* address, int lane) {
  const auto bits = reinterpret_cast<unsigned long long>(address);
  const unsigned low = __shfl_sync(kAllLanes, static_cast<unsigned>(bits), lane);
  const unsigned high = __shfl_sync(kAllLanes, static_cast<unsigned>(bits >> 32), lane);
  return reinterpret_cast<const void*>(static_cast<unsigned long long>(high) << 32 | low);
}

/// Sum over each group of kLanes neighbouring lanes (a power of two); every lane gets it.
template <int kLanes = kWarp>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, distance);
  }
  return value;
}

__device__ __forceinline__ int sum_over_warp(int value) { return __reduce_add_sync(kAllLanes, value); }

/// Largest value of the warp; NaNs are passed over.
__device__ __forceinline__ float max_over_warp(float value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
}

/// Sum of the values of all lanes up to and including this one.
__device__ __forceinline__ unsigned inclusive_sum_over_warp(unsigned value) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const unsigned below = __shfl_up_sync(kAllLanes, value, distance);
    if (lane_index() >= distance) value += below;
  }
  return value;
}

/// Sum of the values of all earlier threads of the block, and the block's total.
/// @param warp_sums[scratch] shared, one word a warp; free for reuse on return
template <int kBlockThreads>
__device__ __forceinline__ unsigned exclusive_sum_over_block(unsigned value, unsigned* warp_sums,
                                                             unsigned& total) {
  constexpr int kWarps = kBlockThreads / kWarp;
  const unsigned inclusive = inclusive_sum_over_warp(value);
  if (lane_index() == kWarp - 1) warp_sums[warp_index()] = inclusive;
  __syncthreads();
  unsigned before = 0;
  total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) {
    const unsigned sum = warp_sums[warp];
    before += warp < warp_index() ? sum : 0;
    total += sum;
  }
  __syncthreads();
  return before + inclusive - value;
}

}  // namespace adamas_cuda
