// Elements in memory: how f16, bf16, f32 and e4m3 become float32 and back.
#pragma once

#include "templates/args.h"
#include "templates/cuda/convert.cuh"

namespace adamas_cuda {

using adamas_abi::i64;

enum class Element { f16, bf16, f32, f8e4m3fn };

/// Two 16-bit numbers side by side.
__device__ __forceinline__ unsigned word_of(unsigned short low, unsigned short high) {
  return low | static_cast<unsigned>(high) << 16;
}

/// A 16-bit element as float32; exact.
template <Element kType>
__device__ __forceinline__ float widen(unsigned short bits) {
  static_assert(kType == Element::f16 || kType == Element::bf16, "widen takes 16-bit elements");
  if constexpr (kType == Element::f16) {
    return f16_to_float(bits);
  } else {
    return bf16_to_float(bits);
  }
}

/// What an e4m3 float is of the f16 that f8_pair_as_f16 makes of it.
constexpr float kF8OfF16 = kConvertsF8 ? 1.0f : 256.0f;

/// Two e4m3 floats, in the lower half of `bits`, as two f16, divided by kF8OfF16; exact. There are no
/// infinities: all ones is NaN.
__device__ __forceinline__ unsigned f8_pair_as_f16(unsigned bits) {
  if constexpr (kConvertsF8) {
    return f8_pair_to_f16(static_cast<unsigned short>(bits & 0xffffu));
  } else {
    // Exponent and fraction stand in an f16 as 2^-8 of the value. A NaN carries into the exponent's top bit.
    const unsigned apart = (bits & 0xffu) | (bits & 0xff00u) << 8;
    const unsigned magnitude = apart & 0x007f007fu, nan = (magnitude + 0x00010001u) & 0x00800080u;
    return (magnitude | nan) << 7 | (apart & 0x00800080u) << 8;
  }
}

/// The same as float32, the one at the lower address first.
__device__ __forceinline__ void widen_f8_pair(unsigned bits, float* out) {
  const unsigned halves = f8_pair_as_f16(bits);
  out[0] = f16_to_float(static_cast<unsigned short>(halves & 0xffffu));
  out[1] = f16_to_float(static_cast<unsigned short>(halves >> 16));
  if constexpr (!kConvertsF8) out[0] *= kF8OfF16, out[1] *= kF8OfF16;
}

/// Elements as they lie in memory: one, and eight, which are aligned as a whole.
template <Element kType>
struct Raw {
  using Unit = unsigned short;
  using Vector = uint4;
};
template <>
struct Raw<Element::f8e4m3fn> {
  using Unit = unsigned char;
  using Vector = uint2;
};
template <>
struct Raw<Element::f32> {
  using Unit = float;
  using Vector = void;  // nobody loads eight
};
template <Element kType>
using RawElement = typename Raw<kType>::Unit;
template <Element kType>
using RawVector = typename Raw<kType>::Vector;

/// Element `index` of an array: a load that nobody waits for yet.
template <Element kType>
__device__ __forceinline__ RawElement<kType> load_raw_element(const void* base, i64 index) {
  return static_cast<const RawElement<kType>*>(base)[index];
}

/// The same as float32.
template <Element kType>
__device__ __forceinline__ float widen_element(RawElement<kType> raw) {
  if constexpr (kType == Element::f32) {
    return raw;
  } else if constexpr (kType == Element::f8e4m3fn) {
    float pair[2];
    widen_f8_pair(raw, pair);
    return pair[0];
  } else {
    return widen<kType>(raw);
  }
}

template <Element kType>
__device__ __forceinline__ float load_element(const void* base, i64 index) {
  return widen_element<kType>(load_raw_element<kType>(base, index));
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

/// The elements of a word, those at lower addresses first: two of 16 bits, or four of 8.
template <Element kType>
__device__ __forceinline__ void widen_word(unsigned word, float* out) {
  if constexpr (kType == Element::f8e4m3fn) {
    widen_f8_pair(word, out);
    widen_f8_pair(word >> 16, out + 2);
  } else {
    out[0] = widen<kType>(static_cast<unsigned short>(word & 0xffffu));
    out[1] = widen<kType>(static_cast<unsigned short>(word >> 16));
  }
}

/// Eight consecutive elements from `index` on.
template <Element kType>
__device__ __forceinline__ RawVector<kType> load_raw(const void* base, i64 index) {
  const auto* address = static_cast<const typename Raw<kType>::Unit*>(base) + index;
  return __ldg(reinterpret_cast<const RawVector<kType>*>(address));
}

template <Element kType>
__device__ __forceinline__ void widen_vector(const RawVector<kType>& words, float (&out)[8]) {
  constexpr int kElements = kType == Element::f8e4m3fn ? 4 : 2;  // of a word
  widen_word<kType>(words.x, out);
  widen_word<kType>(words.y, out + kElements);
  if constexpr (kType != Element::f8e4m3fn) {
    widen_word<kType>(words.z, out + 4);
    widen_word<kType>(words.w, out + 6);
  }
}

/// kCount (4 or 8) consecutive elements from `index` on, one load. Their address is a multiple of their size.
template <Element kType, int kCount>
__device__ __forceinline__ void load_vector(const void* base, i64 index, float (&out)[kCount]) {
  static_assert(kCount == 4 || kCount == 8, "4 or 8 elements make a vector");
  if constexpr (kCount == 8) {
    widen_vector<kType>(load_raw<kType>(base, index), out);
  } else if constexpr (kType == Element::f8e4m3fn) {
    widen_word<kType>(
        __ldg(reinterpret_cast<const unsigned*>(static_cast<const unsigned char*>(base) + index)), out);
  } else {
    const uint2 words =
        __ldg(reinterpret_cast<const uint2*>(static_cast<const unsigned short*>(base) + index));
    widen_word<kType>(words.x, out);
    widen_word<kType>(words.y, out + 2);
  }
}

}  // namespace adamas_cuda
