// Number formats on the host: one element of any plain type, widened to float32. Exact; for samples and
// tools, where a few nanoseconds an element do not matter.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "codegen/spec.hpp"

namespace adamas::runtime {

inline float half_to_float(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int mantissa = bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude =
        mantissa != 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

inline float bfloat_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Element `index` of dense data of f16, bf16 or f32; `data` needs no alignment.
inline float load_element(const void* data, std::int64_t index, codegen::ElementType type) {
  if (type == codegen::ElementType::f32) {
    float value;
    std::memcpy(&value, static_cast<const char*>(data) + index * 4, sizeof(value));
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, static_cast<const char*>(data) + index * 2, sizeof(bits));
  return type == codegen::ElementType::f16 ? half_to_float(bits) : bfloat_to_float(bits);
}

}  // namespace adamas::runtime
