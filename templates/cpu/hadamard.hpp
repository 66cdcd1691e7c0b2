// The orthonormal Hadamard transform of eight vectors at once, one in each lane.
//
// Codes are bitwise equal on every backend, so each step is one float32 operation in the contract's order:
// butterflies over the low bits with strides 1, 2, ..., then the matrix of order 12, 20 or 28 across, left to
// right, then one multiplication. Lanes never mix, and contraction is off in this translation unit.
#pragma once

#include "templates/cpu/convert.hpp"

namespace adamas_cpu {

/// Element i of eight rows in lane order: x[i][lane] = rows[lane][i], as float32.
template <class Format>
ADAMAS_FUNCTION void load_rows(const typename Format::Raw* const (&rows)[8], F32x8* x) {
  if constexpr (Format::kElements > 1) {
    ADAMAS_ROLLED
    for (int i = 0; i < kHeadDim; i += 8) {
      F32x8 of_lane[8];
      ADAMAS_UNROLL
      for (int lane = 0; lane < 8; ++lane)
        of_lane[lane] = load_elements<Format, 8>(rows[lane], i);
      transpose(of_lane);
      ADAMAS_UNROLL
      for (int k = 0; k < 8; ++k)
        x[i + k] = of_lane[k];
    }
  } else {
    using Raw8 = Vec<typename Format::Raw, 8>;
    ADAMAS_ROLLED
    for (int i = 0; i < kHeadDim; i += 8) {
      Raw8 raw[8];
      ADAMAS_UNROLL
      for (int lane = 0; lane < 8; ++lane)
        raw[lane] = load<Raw8>(rows[lane] + i);
      transpose(raw);
      ADAMAS_UNROLL
      for (int k = 0; k < 8; ++k)
        x[i + k] = Format::template widen<8>(raw[k]);
    }
  }
}

constexpr int kButterflies = 1 << kHadamardLog2;  // elements that one radix-2 transform covers

/// (a, b) -> (a + b, a - b) at one stride, over the whole head.
ADAMAS_FUNCTION void butterflies(F32x8* x, int stride) {
  ADAMAS_ROLLED
  for (int base = 0; base < kHeadDim; base += 2 * stride) {
    ADAMAS_ROLLED
    for (int i = base; i < base + stride; ++i) {
      const F32x8 a = x[i], b = x[i + stride];
      x[i] = a + b;
      x[i + stride] = a - b;
    }
  }
}

/// Two strides in one pass over memory: the same additions as butterflies(stride), butterflies(2 * stride).
ADAMAS_FUNCTION void butterflies_twice(F32x8* x, int stride) {
  ADAMAS_ROLLED
  for (int base = 0; base < kHeadDim; base += 4 * stride) {
    ADAMAS_ROLLED
    for (int i = base; i < base + stride; ++i) {
      const F32x8 a = x[i], b = x[i + stride], c = x[i + 2 * stride], d = x[i + 3 * stride];
      const F32x8 sum_ab = a + b, difference_ab = a - b, sum_cd = c + d, difference_cd = c - d;
      x[i] = sum_ab + sum_cd;
      x[i + stride] = difference_ab + difference_cd;
      x[i + 2 * stride] = sum_ab - sum_cd;
      x[i + 3 * stride] = difference_ab - difference_cd;
    }
  }
}

/// Sign bits of the matrix across, ready to be XORed: x - y and x + (-y) are the same IEEE operation.
struct SignBits {
  u32 entry[kHadamardOrder][kHadamardOrder];
};
consteval SignBits sign_bits() {
  SignBits bits{};
  for (int row = 0; row < kHadamardOrder; ++row) {
    for (int b = 0; b < kHadamardOrder; ++b)
      bits.entry[row][b] = (kHadamardRows[row] >> b & 1) << 31;
  }
  return bits;
}
constexpr SignBits kSigns = sign_bits();

ADAMAS_INLINE F32x8 with_sign(F32x8 x, u32 sign) { return bits_as<F32x8>(bits_as<U32x8>(x) ^ sign); }

/// The matrix across the butterflies' blocks, for one block of kHadamard elements: output row r is the sum
/// over b of
/// +-x[b]. A few `lo` advance together, so that their chains of additions overlap.
ADAMAS_FUNCTION void mix_across(F32x8* x) {
  constexpr int kTogether = kButterflies < 4 ? kButterflies : 4;
  ADAMAS_ROLLED
  for (int lo = 0; lo < kButterflies; lo += kTogether) {
    F32x8 in[kHadamardOrder][kTogether];
    ADAMAS_ROLLED
    for (int b = 0; b < kHadamardOrder; ++b) {
      ADAMAS_UNROLL
      for (int k = 0; k < kTogether; ++k)
        in[b][k] = x[b * kButterflies + lo + k];
    }
    ADAMAS_ROLLED
    for (int row = 0; row < kHadamardOrder; ++row) {
      F32x8 sum[kTogether];
      ADAMAS_UNROLL
      for (int k = 0; k < kTogether; ++k)
        sum[k] = with_sign(in[0][k], kSigns.entry[row][0]);
      ADAMAS_ROLLED
      for (int b = 1; b < kHadamardOrder; ++b) {
        ADAMAS_UNROLL
        for (int k = 0; k < kTogether; ++k)
          sum[k] += with_sign(in[b][k], kSigns.entry[row][b]);
      }
      ADAMAS_UNROLL
      for (int k = 0; k < kTogether; ++k)
        x[row * kButterflies + lo + k] = sum[k];
    }
  }
}

/// y = x H / sqrt(m), in place, block by block.
ADAMAS_FUNCTION void rotate(F32x8* x) {
  int stride = 1;
  ADAMAS_ROLLED
  for (; 4 * stride <= kButterflies; stride *= 4)
    butterflies_twice(x, stride);
  if (stride < kButterflies) butterflies(x, stride);
  if constexpr (kHadamardOrder > 1) {
    ADAMAS_ROLLED
    for (int block = 0; block < kHeadDim; block += kHadamard)
      mix_across(x + block);
  }
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i)
    x[i] *= kHadamardNorm;
}

}  // namespace adamas_cpu
