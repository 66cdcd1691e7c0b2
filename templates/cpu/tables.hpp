// The query as the scan wants it: a 16-entry table for every nibble of a code row, so that scoring a token is
// one table lookup and one addition a nibble, whatever the bucket count and the estimator.
//
// Table entries are never negative. manhattan: the distances, so the sum is the distance. dot: with T =
// buckets - 1,
//   sum q * (2c - T) = 2 * sum |q| * c' - T * sum |q|,   c' = c, or T - c where q < 0,
// so the entries are |q| * c', half as large as the terms of the score, and the rest is one constant a query.
#pragma once

#include "templates/cpu/types.hpp"

namespace adamas_cpu {

/// The code (or the bit of a code) that a table index stands for, for index values 0..15.
struct IndexCodes {
  u16 of[16];
};
consteval int largest(const IndexCodes& codes) {
  int most = 0;
  for (const u16 code : codes.of)
    most = code > most ? code : most;
  return most;
}

/// What one element adds to the sum, for index values 0..15: `query` is its integer, `top` the largest code.
ADAMAS_INLINE U16x16 element_entries(int query, const IndexCodes& codes, int top) {
  const U16x16 code = load<U16x16>(codes.of);
  if constexpr (kDot) {
    const U16x16 effective = query < 0 ? static_cast<u16>(top) - code : code;
    return effective * static_cast<u16>(query < 0 ? -query : query);
  } else {
    const U16x16 own = static_cast<u16>(query);
    return code > own ? code - own : own - code;
  }
}

/// From a sum to the order key (unsigned, larger is better): kKeyFactor * sum + a constant of the query.
constexpr int kKeyFactor = kDot ? 2 : -1;
ADAMAS_INLINE int key_offset(int query_magnitudes) {
  return kDot ? kScoreLimit - (kBuckets - 1) * query_magnitudes : kScoreLimit;
}

}  // namespace adamas_cpu
