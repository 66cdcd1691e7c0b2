// What the generator writes for the default Spec: code of one bucket count, value -> code -> nibble -> code.
//
// Only for editors and other tools that read the templates as they are. In a translation unit
// the generator's own text stands in this place; a test holds the two together.
#pragma once

#include "templates/cpu/types.hpp"

namespace adamas_cpu {

/// Code of a rotated element: how many of the thresholds lie strictly below it. A comparison
/// gives -1 for true, and 0 for NaN.
ADAMAS_INLINE I32x8 bucket(F32x8 y, const float* t) {
  return -((y > t[0]) + (y > t[1]) + (y > t[2]));
}

/// Nibble n of a code row, from the codes of all elements.
template <class Code>
ADAMAS_INLINE Code pack_nibble(const Code* c, int n) {
  return c[2 * n] | c[2 * n + 1] << 2;
}

/// Nibble n of the code row whose byte 0 is at `row`.
ADAMAS_INLINE int nibble_of(const u8* row, int n) { return row[n / 2 * kTileTokens] >> n % 2 * 4 & 15; }

/// Code of element i.
ADAMAS_INLINE int code_of(const u8* row, int i) {
  return nibble_of(row, i / 2) >> i % 2 * 2 & 3;
}

}  // namespace adamas_cpu
