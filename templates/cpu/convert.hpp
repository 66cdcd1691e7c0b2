// Number formats in memory: float16, bfloat16 and float32 to float32 vectors and back, rounding to nearest
// even; e4m3 floats and blocks of 8-bit integers to float32.
#pragma once

#include "templates/cpu/types.hpp"

namespace adamas_cpu {

// Formats: `Raw` is what memory holds, and strides count: kElements elements. widen() is exact, narrow()
// rounds and keeps a NaN a (quiet) NaN.

struct Float32 {
  using Raw = float;
  static constexpr int kElements = 1;
  template <int N>
  ADAMAS_INLINE Vec<float, N> widen(Vec<float, N> raw) {
    return raw;
  }
  template <int N>
  ADAMAS_INLINE Vec<float, N> narrow(Vec<float, N> value) {
    return value;
  }
};

struct BFloat16 {
  using Raw = u16;
  static constexpr int kElements = 1;
  template <int N>
  ADAMAS_INLINE Vec<float, N> widen(Vec<u16, N> raw) {
    return bits_as<Vec<float, N>>(__builtin_convertvector(raw, Vec<u32, N>) << 16);
  }
  template <int N>
  ADAMAS_INLINE Vec<u16, N> narrow(Vec<float, N> value) {
    using U32 = Vec<u32, N>;
    const U32 bits = bits_as<U32>(value);
    const U32 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const U32 quiet = (bits >> 16) | 0x40;
    return __builtin_convertvector(value != value ? quiet : rounded, Vec<u16, N>);
  }
};

struct Float16 {
  using Raw = u16;
  static constexpr int kElements = 1;
#if defined(__F16C__) || defined(__aarch64__)
  template <int N>
  ADAMAS_INLINE Vec<float, N> widen(Vec<u16, N> raw) {
    return __builtin_convertvector(bits_as<Vec<_Float16, N>>(raw), Vec<float, N>);
  }
  template <int N>
  ADAMAS_INLINE Vec<u16, N> narrow(Vec<float, N> value) {
    return bits_as<Vec<u16, N>>(__builtin_convertvector(value, Vec<_Float16, N>));
  }
#else
  // Without conversion instructions: exponent and fraction move into place as integers, one multiplication by
  // 2^112 corrects the bias (and makes subnormals right), infinities and NaN get the largest exponent.
  template <int N>
  ADAMAS_INLINE Vec<float, N> widen(Vec<u16, N> raw) {
    using U32 = Vec<u32, N>;
    const U32 bits = __builtin_convertvector(raw, U32);
    const U32 finite = bits_as<U32>(bits_as<Vec<float, N>>((bits & 0x7fff) << 13) * 0x1p112f);
    const U32 special = bits_as<U32>((bits & 0x7c00) == 0x7c00) & 0x7f800000;
    return bits_as<Vec<float, N>>(finite | special | (bits & 0x8000) << 16);
  }
  // Normal results round in integer arithmetic. Subnormal ones round in the addition of 0.5, whose unit in
  // the last place is theirs.
  template <int N>
  ADAMAS_INLINE Vec<u16, N> narrow(Vec<float, N> value) {
    using U32 = Vec<u32, N>;
    const U32 bits = bits_as<U32>(value);
    const U32 magnitude = bits & 0x7fffffff;
    const U32 normal = (magnitude + (0xfff - (112u << 23)) + ((magnitude >> 13) & 1)) >> 13;
    const U32 subnormal = bits_as<U32>(bits_as<Vec<float, N>>(magnitude) + 0.5f) - 0x3f000000;
    U32 result = magnitude < 0x38800000 ? subnormal : normal;
    result = magnitude >= 0x47800000 ? U32(0x7c00) : result;
    result = magnitude > 0x7f800000 ? U32(0x7e00) : result;
    return __builtin_convertvector(result | (bits >> 16 & 0x8000), Vec<u16, N>);
  }
#endif
};

/// Sign, 4 bits of exponent, 3 of fraction; no infinities, all ones is NaN. Stored divided by a scale, which
/// whoever uses them multiplies by.
struct Float8E4M3 {
  using Raw = u8;
  static constexpr int kElements = 1;
  // Exponent and fraction stand in an f16 as 2^-8 of the value. A NaN carries into the exponent's top bit.
  template <int N>
  ADAMAS_INLINE Vec<float, N> widen(Vec<u8, N> raw) {
    using U16 = Vec<u16, N>;
    const U16 bits = __builtin_convertvector(raw, U16);
    const U16 magnitude = bits & 0x7f, nan = (magnitude + 1) & 0x80;
    return Float16::widen<N>((magnitude | nan) << 7 | (bits & 0x80) << 8) * 256.0f;
  }
};

/// q8_0 of ggml: 32 integers behind their scale, an f16.
struct BlockInt8 {
  struct Raw {
    u16 scale;
    signed char integer[32];
  };
  static constexpr int kElements = 32;
};
static_assert(sizeof(BlockInt8::Raw) == 34);

/// N elements of a row as float32.
template <class Format, int N>
ADAMAS_INLINE Vec<float, N> load_floats(const typename Format::Raw* from) {
  return Format::template widen<N>(load<Vec<typename Format::Raw, N>>(from));
}

/// Elements i .. i + N - 1 of a row as float32: of a block, N divides 32 and i.
template <class Format, int N>
ADAMAS_INLINE Vec<float, N> load_elements(const typename Format::Raw* row, int i) {
  if constexpr (Format::kElements == 1) {
    return load_floats<Format, N>(row + i);
  } else {
    const typename Format::Raw& block = row[i / Format::kElements];
    const auto integers = load<Vec<signed char, N>>(block.integer + i % Format::kElements);
    return __builtin_convertvector(integers, Vec<float, N>) * Float16::widen<N>(Vec<u16, N>(block.scale));
  }
}

template <class Format, int N>
ADAMAS_INLINE void store_floats(typename Format::Raw* to, Vec<float, N> value) {
  store(to, Format::template narrow<N>(value));
}

}  // namespace adamas_cpu
