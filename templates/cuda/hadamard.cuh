// Pieces of the Hadamard transform of one vector held by one warp: element 32 j + lane is register j of that
// lane. In lane_butterfly a few lanes hold a vector of kElements each: element kElements l + e is register e of
// the l-th of them. One IEEE operation a step, never contracted: codes must be the same bits on every backend.
#pragma once

#include "templates/cuda/group.cuh"

namespace adamas_cuda {

/// -value where `sign` is 0x80000000, value where it is 0.
__device__ __forceinline__ float flip_sign(float value, unsigned sign) {
  return __uint_as_float(__float_as_uint(value) ^ sign);
}

/// Radix-2 stage: elements a and c that lie kStride apart become a + c and a - c.
template <int kStride, int kRegisters>
__device__ __forceinline__ void butterfly(float (&x)[kRegisters]) {
  if constexpr (kStride < kWarp) {
    // The partner is the same register of another lane; the upper one of the pair computes a - c as a + (-c).
    const unsigned sign = (lane_index() & kStride) != 0 ? 0x80000000u : 0u;
#pragma unroll
    for (int j = 0; j < kRegisters; ++j) {
      const float partner = __shfl_xor_sync(kAllLanes, x[j], kStride);
      x[j] = __fadd_rn(partner, flip_sign(x[j], sign));
    }
  } else {
    constexpr int kStep = kStride / kWarp;
#pragma unroll
    for (int j = 0; j < kRegisters; ++j) {
      if ((j & kStep) != 0) continue;
      const float a = x[j], c = x[j + kStep];
      x[j] = __fadd_rn(a, c);
      x[j + kStep] = __fsub_rn(a, c);
    }
  }
}

/// The same where a lane has kElements neighbouring elements.
template <int kStride, int kElements>
__device__ __forceinline__ void lane_butterfly(float (&x)[kElements]) {
  if constexpr (kStride < kElements) {
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      if ((e & kStride) != 0) continue;
      const float a = x[e], c = x[e + kStride];
      x[e] = __fadd_rn(a, c);
      x[e + kStride] = __fsub_rn(a, c);
    }
  } else {
    constexpr int kLanes = kStride / kElements;
    // A product with 1 or -1 is exact, so this is one addition or subtraction.
    const float sign = (lane_index() & kLanes) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      x[e] = __fmaf_rn(x[e], sign, __shfl_xor_sync(kAllLanes, x[e], kLanes));
    }
  }
}

/// Stage of a written matrix H: the kOrder elements of a block that lie kStride apart become
/// y_r = sum over b of H[r][b] x_b, from left to right.
/// @param signs    bit b of row r set: H[r][b] = -1
/// @param scratch  2 kDim floats of shared memory of this warp
template <int kOrder, int kStride, int kDim, int kRegisters>
__device__ __forceinline__ void mix(float (&x)[kRegisters], const unsigned (&signs)[kOrder], float* scratch) {
  float* mixed = scratch + kDim;
#pragma unroll
  for (int j = 0; j < kRegisters; ++j) {
    const int element = j * kWarp + lane_index();
    if (element < kDim) scratch[element] = x[j];
  }
  __syncwarp();
  // Rolled up, through memory: kRegisters copies of the sum would take long to compile.
#pragma unroll 1
  for (int element = lane_index(); element < kDim; element += kWarp) {
    const int row = element / kStride % kOrder;
    const float* column = scratch + (element - row * kStride);
    const unsigned row_signs = signs[row];
    float sum = flip_sign(column[0], row_signs << 31);
#pragma unroll
    for (int b = 1; b < kOrder; ++b) {
      sum = __fadd_rn(sum, flip_sign(column[b * kStride], row_signs << (31 - b) & 0x80000000u));
    }
    mixed[element] = sum;
  }
#pragma unroll
  for (int j = 0; j < kRegisters; ++j) {
    const int element = j * kWarp + lane_index();
    if (element < kDim) x[j] = mixed[element];  // written by this lane
  }
  __syncwarp();
}

template <int kRegisters>
__device__ __forceinline__ void scale(float (&x)[kRegisters], float factor) {
#pragma unroll
  for (int j = 0; j < kRegisters; ++j) {
    x[j] = __fmul_rn(x[j], factor);
  }
}

}  // namespace adamas_cuda
