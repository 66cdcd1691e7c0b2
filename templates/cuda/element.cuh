// Elements in memory: how f16, bf16 and f32 become float32 and back. The only PTX of the kernels, so that the
// source needs no header of any toolkit.
#pragma once

#include "templates/args.h"
#include "templates/cuda/convert.cuh"

namespace adamas_cuda {

using adamas_abi::i64;

enum class Element { f16, bf16, f32 };

/// A 16-bit element as float32; exact.
template <Element kType>
__device__ __forceinline__ float widen(unsigned short bits) {
  static_assert(kType != Element::f32, "widen takes 16-bit elements");
  if constexpr (kType == Element::f16) {
    return f16_to_float(bits);
  } else {
    return bf16_to_float(bits);
  }
}

/// Element `index` of an array, as float32.
template <Element kType>
__device__ __forceinline__ float load_element(const void* base, i64 index) {
  if constexpr (kType == Element::f32) {
    return __ldg(static_cast<const float*>(base) + index);
  } else {
    return widen<kType>(__ldg(static_cast<const unsigned short*>(base) + index));
  }
}

/// Stores float32 as element `index` of an array, rounded to nearest even.
template <Element kType>
__device__ __forceinline__ void store_element(void* base, i64 index, float value) {
  if constexpr (kType == Element::f32) {
    static_cast<float*>(base)[index] = value;
  } else {
    static_cast<unsigned short*>(base)[index] =
        kType == Element::f16 ? float_to_f16(value) : float_to_bf16(value);
  }
}

/// The two 16-bit elements of a word, the one at the lower address first.
template <Element kType>
__device__ __forceinline__ void widen_pair(unsigned word, float* out) {
  out[0] = widen<kType>(static_cast<unsigned short>(word & 0xffffu));
  out[1] = widen<kType>(static_cast<unsigned short>(word >> 16));
}

/// Eight consecutive 16-bit elements from `index` on, as they lie in memory. Their address is a multiple
/// of 16.
__device__ __forceinline__ uint4 load_raw(const void* base, i64 index) {
  return __ldg(reinterpret_cast<const uint4*>(static_cast<const unsigned short*>(base) + index));
}

template <Element kType>
__device__ __forceinline__ void widen_vector(const uint4& words, float (&out)[8]) {
  widen_pair<kType>(words.x, out);
  widen_pair<kType>(words.y, out + 2);
  widen_pair<kType>(words.z, out + 4);
  widen_pair<kType>(words.w, out + 6);
}

/// kCount (2, 4 or 8) consecutive 16-bit elements from `index` on, one load. Their address is a multiple of
/// their size.
template <Element kType, int kCount>
__device__ __forceinline__ void load_vector(const void* base, i64 index, float (&out)[kCount]) {
  const unsigned short* address = static_cast<const unsigned short*>(base) + index;
  if constexpr (kCount == 8) {
    widen_vector<kType>(load_raw(base, index), out);
  } else if constexpr (kCount == 4) {
    const uint2 words = __ldg(reinterpret_cast<const uint2*>(address));
    widen_pair<kType>(words.x, out);
    widen_pair<kType>(words.y, out + 2);
  } else {
    static_assert(kCount == 2, "2, 4 or 8 elements make a vector");
    widen_pair<kType>(__ldg(reinterpret_cast<const unsigned*>(address)), out);
  }
}

}  // namespace adamas_cuda
