// 16-bit and 8-bit floats to float32 and back, in PTX, so that the source needs no header of any toolkit.
#pragma once

namespace adamas_cuda {

/// Bits of an f16 as float32; exact.
__device__ __forceinline__ float f16_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

/// Round to nearest, ties to even.
__device__ __forceinline__ unsigned short float_to_f16(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

/// Whether the machine converts e4m3 floats; element.cuh does it by integers elsewhere.
#if __CUDA_ARCH__ >= 890
inline constexpr bool kConvertsF8 = true;

/// Two e4m3 floats as two f16; exact.
__device__ __forceinline__ unsigned f8_pair_to_f16(unsigned short bits) {
  unsigned halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(bits));
  return halves;
}
#else
inline constexpr bool kConvertsF8 = false;
__device__ unsigned f8_pair_to_f16(unsigned short bits);  // not called
#endif

/// A bf16 is the upper half of a float32.
__device__ __forceinline__ float bf16_to_float(unsigned short bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}

/// Round to nearest, ties to even.
__device__ __forceinline__ unsigned short float_to_bf16(float value) {
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace adamas_cuda
