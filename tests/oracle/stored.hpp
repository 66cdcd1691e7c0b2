// Rows of K and V as caches store them, formats with scales included: e4m3 floats with a scale from outside,
// and blocks of 8-bit integers with scales of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tests/oracle/numbers.hpp"

namespace adamas::oracle {

/// float -> e4m3 (1 sign, 4 exponent and 3 fraction bits, bias 7): nearest, ties to even, at most 448; what
/// is not finite becomes the NaN 0x7f.
uint8_t to_f8(float value);
float from_f8(uint8_t bits);

/// The values nearest to `row` that the format can hold, as a reader gets them: exact, but for the one
/// rounding of e4m3 value * scale.
/// @param scale  of kF8E4M3; others ignore it
std::vector<float> stored(Format format, std::span<const float> row, float scale);

/// The bytes of a row of such values. pack(stored(row)) loses nothing.
std::vector<std::byte> pack(Format format, std::span<const float> row, float scale);

}  // namespace adamas::oracle
