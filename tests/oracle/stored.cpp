// Storing rows: see stored.hpp. By plain arithmetic and search, to be easy to check.
#include "tests/oracle/stored.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace adamas::oracle {
namespace {

constexpr int kBlock = 32;  // elements of a q8_0 block

template <class T>
void append(std::vector<std::byte>& bytes, T value) {
  const auto* data = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), data, data + sizeof value);
}

/// A q8_0 block: element i is scale * integers[i].
struct Block {
  float scale;
  std::vector<int> integers;
};

/// The scale that makes the largest magnitude 127. What is not finite makes the whole block NaN.
Block block_of(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) {
    if (!std::isfinite(value)) {
      return {std::numeric_limits<float>::quiet_NaN(), std::vector<int>(values.size(), 1)};
    }
    largest = std::max(largest, std::fabs(value));
  }
  Block block{from_f16(to_f16(largest / 127)), {}};
  for (const float value : values) {
    const double steps = block.scale == 0 ? 0 : static_cast<double>(value) / block.scale;
    block.integers.push_back(static_cast<int>(std::clamp(std::nearbyint(steps), -127.0, 127.0)));
  }
  return block;
}

}  // namespace

float from_f8(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  float magnitude;
  if (exponent == 15 && fraction == 7) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -9);
  } else {
    magnitude = std::ldexp(static_cast<float>(8 + fraction), exponent - 10);
  }
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

uint8_t to_f8(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (!std::isfinite(value)) return 0x7f;
  // Nonnegative patterns are ordered as their values: the nearest of all, of two equally near the even one.
  const double magnitude = std::fabs(static_cast<double>(value));
  uint8_t best = 0;
  for (int bits = 1; bits < 0x7f; ++bits) {
    const double distance = std::fabs(from_f8(static_cast<uint8_t>(bits)) - magnitude);
    const double before = std::fabs(from_f8(best) - magnitude);
    if (distance < before || (distance == before && bits % 2 == 0)) best = static_cast<uint8_t>(bits);
  }
  return sign | best;
}

std::vector<float> stored(Format format, std::span<const float> row, float scale) {
  std::vector<float> values;
  if (format == Format::kQ8_0) {
    for (std::size_t first = 0; first < row.size(); first += kBlock) {
      const Block block = block_of(row.subspan(first, kBlock));
      for (const int integer : block.integers)
        values.push_back(static_cast<float>(integer) * block.scale);
    }
    return values;
  }
  for (const float value : row) {
    values.push_back(format == Format::kF8E4M3 ? from_f8(to_f8(value / scale)) * scale
                                               : round_to(format, value));
  }
  return values;
}

std::vector<std::byte> pack(Format format, std::span<const float> row, float scale) {
  std::vector<std::byte> bytes;
  if (format == Format::kQ8_0) {
    for (std::size_t first = 0; first < row.size(); first += kBlock) {
      const Block block = block_of(row.subspan(first, kBlock));
      append(bytes, to_f16(block.scale));
      for (const int integer : block.integers)
        append(bytes, static_cast<int8_t>(integer));
    }
    return bytes;
  }
  for (const float value : row) {
    switch (format) {
      case Format::kF8E4M3:
        append(bytes, to_f8(value / scale));
        break;
      case Format::kF32:
        append(bytes, value);
        break;
      default:
        append(bytes, format == Format::kF16 ? to_f16(value) : to_bf16(value));
    }
  }
  return bytes;
}

}  // namespace adamas::oracle
