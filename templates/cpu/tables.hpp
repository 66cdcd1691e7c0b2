// The query as the scan wants it: a table of 16 entries for every nibble of a code row, so that scoring a
// token is one table lookup and one addition a nibble, whatever the bucket count and the estimator. Where the
// machine looks bytes up in tables of 64, an index is of three elements.
//
// Table entries are never negative. manhattan: the distances, so the sum is the distance. dot: with T =
// buckets - 1,
//   sum q * (2c - T) = 2 * sum |q| * c' - T * sum |q|,   c' = c, or T - c where q < 0,
// so the entries are |q| * c', half as large as the terms of the score, and the rest is one constant a query.
#pragma once

#include "templates/cpu/types.hpp"

namespace adamas_cpu {

/// The code (or the bit of a code) that a table index stands for, for each of its values.
template <int kValues>
struct IndexCodes {
  u16 of[kValues];
};

/// Bits shift .. shift + width - 1 of the index.
template <int kValues>
consteval IndexCodes<kValues> bits_of_index(int shift, int width) {
  IndexCodes<kValues> codes{};
  for (int value = 0; value < kValues; ++value)
    codes.of[value] = static_cast<u16>(value >> shift & ((1 << width) - 1));
  return codes;
}
template <int kValues>
consteval int largest(const IndexCodes<kValues>& codes) {
  int most = 0;
  for (const u16 code : codes.of)
    most = code > most ? code : most;
  return most;
}

/// What one element adds to the sum, for each value of an index: `query` is its integer, `top` the largest
/// code.
template <int kValues>
ADAMAS_INLINE Vec<u16, kValues> element_entries(int query, const IndexCodes<kValues>& codes, int top) {
  using Entries = Vec<u16, kValues>;
  const Entries code = load<Entries>(codes.of);
  if constexpr (kDot) {
    const Entries effective = query < 0 ? static_cast<u16>(top) - code : code;
    return effective * static_cast<u16>(query < 0 ? -query : query);
  } else {
    const Entries own = static_cast<u16>(query);
    return code > own ? code - own : own - code;
  }
}

/// From a sum to the order key (unsigned, larger is better): kKeyFactor * sum + a constant of the query.
constexpr int kKeyFactor = kDot ? 2 : -1;
ADAMAS_INLINE int key_offset(int query_magnitudes) {
  return kDot ? kScoreLimit - (kBuckets - 1) * query_magnitudes : kScoreLimit;
}

}  // namespace adamas_cpu
