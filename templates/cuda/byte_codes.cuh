// Codes as bytes, for byte_mma.cuh.
#pragma once

#include "templates/cuda/byte_mma.cuh"

namespace adamas_cuda {

constexpr int kBytesOfWord = 8;  ///< words of bytes that a word of bits becomes

/// A word of each plane -> the codes of its 32 elements: element 8 m + t is byte m of bytes[t].
template <int kCount>
__device__ __forceinline__ void spread(const unsigned (&planes)[kCount], unsigned (&bytes)[kBytesOfWord]) {
  if constexpr (kCount == 2) {
    // Even elements' codes side by side, and odd ones'.
    const unsigned even = (planes[0] & 0x55555555u) | (planes[1] & 0x55555555u) << 1;
    const unsigned odd = (planes[0] >> 1 & 0x55555555u) | (planes[1] & 0xaaaaaaaau);
#pragma unroll
    for (int t = 0; t < kBytesOfWord; t += 2) {
      bytes[t] = even >> t & 0x03030303u;
      bytes[t + 1] = odd >> t & 0x03030303u;
    }
  } else {
#pragma unroll
    for (int t = 0; t < kBytesOfWord; ++t) {
      bytes[t] = 0;
#pragma unroll
      for (int plane = 0; plane < kCount; ++plane) {
        bytes[t] |= (planes[plane] >> t & 0x01010101u) << plane;
      }
    }
  }
}

/// Adds the products of a word's 32 codes in each of four lanes.
/// @param column  as spread lays out bytes
template <int kCount>
__device__ __forceinline__ void add_products(int (&sums)[4], const unsigned (&planes)[kCount],
                                             const unsigned (&planes_below)[kCount], const unsigned* column) {
  unsigned row[kBytesOfWord], row_below[kBytesOfWord];
  spread(planes, row);
  spread(planes_below, row_below);
#pragma unroll
  for (int t = 0; t < kBytesOfWord; t += 2) {
    add_byte_products(sums, {row[t], row[t + 1]}, {row_below[t], row_below[t + 1]},
                      {column[t], column[t + 1]});
  }
}

}  // namespace adamas_cuda
