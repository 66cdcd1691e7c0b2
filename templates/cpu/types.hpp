// Words that every CPU stage uses: integer names, vector types, memory access, table lookup, counters.
//
// The compiler sees no headers and runs without its vectorizers: whatever should be a vector is written as
// one, with clang's ext_vector_type. A vector wider than the machine's registers is split by the compiler, so
// one text serves SSE4, AVX2, AVX-512 and NEON.
#pragma once

#include "templates/args.h"
#include "templates/cpu/example_constants.hpp"

#define ADAMAS_STAGE extern "C" __attribute__((visibility("default"))) void
// A translation unit uses some of what it includes: none of it is worth a warning.
#define ADAMAS_FUNCTION [[maybe_unused]] static inline
#define ADAMAS_INLINE [[maybe_unused, gnu::always_inline]] static inline
#define ADAMAS_NOINLINE [[maybe_unused, gnu::noinline]] static
#define ADAMAS_UNROLL _Pragma("clang loop unroll(full)")
#define ADAMAS_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#define ADAMAS_ROLLED _Pragma("clang loop unroll(disable)")

// Vectors wider than a register never cross a call: functions that take them are inlined.
#pragma clang diagnostic ignored "-Wpsabi"

namespace adamas_cpu {

using adamas_abi::Args;
using adamas_abi::i64;
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

template <class T, int N>
using Vec __attribute__((ext_vector_type(N))) = T;

using F32x8 = Vec<float, 8>;
using F32x16 = Vec<float, 16>;
using I32x8 = Vec<int, 8>;
using U32x8 = Vec<u32, 8>;
using U8x16 = Vec<u8, 16>;
using U8x64 = Vec<u8, 64>;
using U16x32 = Vec<u16, 32>;

template <class To, class From>
ADAMAS_INLINE To bits_as(From from) {
  return __builtin_bit_cast(To, from);
}

/// Host data is aligned to its element and no further: every vector access goes through these two.
template <class V>
ADAMAS_INLINE V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class V>
ADAMAS_INLINE void store(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <class T>
constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T larger(T a, T b) {
  return a < b ? b : a;
}

constexpr i64 ceil_div(i64 a, i64 b) { return (a + b - 1) / b; }

/// Lane i of every row trades places with row i: r[i][j] <-> r[j][i]. N rows of N lanes, N a power of two.
/// Each round interleaves the upper and the lower half of the rows; log2(N) rounds make the transpose.
template <int N, class V>
ADAMAS_INLINE void transpose(V (&rows)[N]) {
  ADAMAS_UNROLL
  for (int round = 1; round < N; round *= 2) {
    V mixed[N];
    ADAMAS_UNROLL
    for (int i = 0; i < N / 2; ++i) {
      const V a = rows[i], b = rows[i + N / 2];
      if constexpr (N == 8) {
        mixed[2 * i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        mixed[2 * i + 1] = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
      } else {
        static_assert(N == 16);
        mixed[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        mixed[2 * i + 1] =
            __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      }
    }
    ADAMAS_UNROLL
    for (int i = 0; i < N; ++i)
      rows[i] = mixed[i];
  }
}

/// table[index] for 64 indexes below 16: one byte shuffle of the machine's own width.
ADAMAS_INLINE U8x64 lookup(U8x16 table, U8x64 index) {
#if defined(__AVX512BW__)
  using Wide = Vec<char, 64>;
  const U8x64 all =
      __builtin_shufflevector(table, table, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3,
                              4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                              12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return bits_as<U8x64>(__builtin_ia32_pshufb512(bits_as<Wide>(all), bits_as<Wide>(index)));
#else
  struct Quarters {
    U8x16 part[4];
  };
#if defined(__AVX2__)
  using Half = Vec<char, 32>;
  struct Halves {
    Half part[2];
  };
  Halves at = bits_as<Halves>(index);
  const Half twice =
      bits_as<Half>(__builtin_shufflevector(table, table, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14,
                                            15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  ADAMAS_UNROLL
  for (int i = 0; i < 2; ++i)
    at.part[i] = bits_as<Half>(__builtin_ia32_pshufb256(twice, at.part[i]));
  return bits_as<U8x64>(at);
#elif defined(__SSSE3__)
  using Quarter = Vec<char, 16>;
  Quarters at = bits_as<Quarters>(index);
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    at.part[i] =
        bits_as<U8x16>(__builtin_ia32_pshufb128(bits_as<Quarter>(table), bits_as<Quarter>(at.part[i])));
  }
  return bits_as<U8x64>(at);
#elif defined(__aarch64__)
  using Quarter = signed char __attribute__((neon_vector_type(16)));
  constexpr int kInt8x16 = 32;  // the builtin's code for the element type
  Quarters at = bits_as<Quarters>(index);
  ADAMAS_UNROLL
  for (int i = 0; i < 4; ++i) {
    at.part[i] = bits_as<U8x16>(
        __builtin_neon_vqtbl1q_v(bits_as<Quarter>(table), bits_as<Quarter>(at.part[i]), kInt8x16));
  }
  return bits_as<U8x64>(at);
#else
  U8x64 found;
  for (int i = 0; i < 64; ++i)
    found[i] = table[index[i]];
  return found;
#endif
#endif
}

#if defined(__AVX512VBMI__)
/// table[index % 64].
ADAMAS_INLINE U8x64 lookup(U8x64 table, U8x64 index) {
  using Wide = Vec<char, 64>;
  return bits_as<U8x64>(__builtin_ia32_permvarqi512(bits_as<Wide>(table), bits_as<Wide>(index)));
}
#endif

/// Bit i of the result: lane i of a comparison's mask.
template <class Mask>
ADAMAS_INLINE u32 mask_bits32(Mask mask) {
  return bits_as<u32>(__builtin_convertvector(mask, Vec<bool, 32>));
}

ADAMAS_INLINE void report(const Args& args, u32 status) {
  if (status != 0 && args.counters != nullptr) {
    __atomic_fetch_or(&args.counters->status, status, __ATOMIC_RELAXED);
  }
}
ADAMAS_INLINE void count(const Args& args, unsigned long long adamas_abi::Counters::*counter, i64 amount) {
  if (amount > 0 && args.counters != nullptr) {
    __atomic_fetch_add(&(args.counters->*counter), static_cast<u64>(amount), __ATOMIC_RELAXED);
  }
}

}  // namespace adamas_cpu
