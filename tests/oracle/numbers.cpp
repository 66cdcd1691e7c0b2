// The 16-bit number formats. Conversions to f16 go through scaled integers, not bit tricks, to be easy to
// check.
#include "tests/oracle/numbers.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace adamas::oracle {

uint16_t to_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(value)) return sign | 0x7c00;
  if (magnitude == 0) return sign;

  // Spacing of f16 around the value: 2^(e-10) for exponent e, never below 2^-24 (subnormals).
  int exponent = std::ilogb(magnitude);
  if (exponent < -14) exponent = -14;
  // Steps of that spacing, rounded half to even; exact in double. 1024..2047 for a normal number.
  int64_t steps = static_cast<int64_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  if (steps == 2048) {
    steps = 1024;
    ++exponent;
  }
  if (exponent > 15) return sign | 0x7c00;
  if (steps < 1024) return sign | static_cast<uint16_t>(steps);
  return static_cast<uint16_t>(sign | ((exponent + 15) << 10) | (steps - 1024));
}

float from_f16(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude =
        fraction != 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t upper = bits >> 16;
  if (std::isnan(value)) return static_cast<uint16_t>(upper | 0x0040);
  const uint32_t rest = bits & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && (upper & 1) != 0);
  return static_cast<uint16_t>(upper + (up ? 1 : 0));
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

float round_to(Format format, float value) {
  switch (format) {
    case Format::kF16:
      return from_f16(to_f16(value));
    case Format::kBF16:
      return from_bf16(to_bf16(value));
    case Format::kF32:
      return value;
    default:
      throw std::logic_error("oracle: a format that has scales");
  }
}

std::vector<uint16_t> pack16(Format format, const std::vector<float>& values) {
  if (format == Format::kF32) throw std::logic_error("oracle: pack16 takes a 16-bit format");
  std::vector<uint16_t> bits;
  bits.reserve(values.size());
  for (const float value : values)
    bits.push_back(format == Format::kF16 ? to_f16(value) : to_bf16(value));
  return bits;
}

std::vector<float> unpack16(Format format, const std::vector<uint16_t>& bits) {
  if (format == Format::kF32) throw std::logic_error("oracle: unpack16 takes a 16-bit format");
  std::vector<float> values;
  values.reserve(bits.size());
  for (const uint16_t b : bits)
    values.push_back(format == Format::kF16 ? from_f16(b) : from_bf16(b));
  return values;
}

double tolerance(Format format) {
  switch (format) {
    case Format::kF16:
      return 2e-3;
    case Format::kBF16:
      return 8e-3;
    case Format::kF32:
      return 1e-5;
    default:
      throw std::logic_error("oracle: no format of outputs");
  }
}

double smallest_step(Format format) {
  switch (format) {
    case Format::kF16:
      return std::ldexp(1.0, -24);
    case Format::kBF16:
      return std::ldexp(1.0, -133);
    case Format::kF32:
      return std::ldexp(1.0, -149);
    default:
      throw std::logic_error("oracle: no format of outputs");
  }
}

}  // namespace adamas::oracle
