// Stored rows against facts of their formats that do not come from the code: the table of OCP's e4m3, and
// ggml's rule of q8_0 blocks.
#include "tests/oracle/stored.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace adamas::oracle;

TEST_CASE("oracle: e4m3 has the values of its definition") {
  CHECK(from_f8(0x00) == 0);
  CHECK(std::signbit(from_f8(0x80)));
  CHECK(from_f8(0x01) == 0x1p-9f);  // the smallest subnormal
  CHECK(from_f8(0x07) == 7 * 0x1p-9f);
  CHECK(from_f8(0x08) == 0x1p-6f);  // the smallest normal
  CHECK(from_f8(0x38) == 1);
  CHECK(from_f8(0xbc) == -1.5f);
  CHECK(from_f8(0x7e) == 448);  // the largest
  CHECK(std::isnan(from_f8(0x7f)));
  CHECK(std::isnan(from_f8(0xff)));
  for (int bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7f) != 0x7f) CHECK(to_f8(from_f8(static_cast<uint8_t>(bits))) == bits);
  }
}

TEST_CASE("oracle: e4m3 rounds to nearest, ties to even, and never beyond 448") {
  CHECK(to_f8(1.0625f) == 0x38);  // between 1 and 1.125: even
  CHECK(to_f8(1.1875f) == 0x3a);  // between 1.125 and 1.25: even
  CHECK(to_f8(1.07f) == 0x39);
  CHECK(to_f8(0x1p-10f) == 0x00);  // half of the smallest
  CHECK(to_f8(0x1.8p-10f) == 0x01);
  CHECK(to_f8(1e9f) == 0x7e);
  CHECK(to_f8(-449.0f) == 0xfe);
  CHECK(to_f8(std::numeric_limits<float>::infinity()) == 0x7f);
  CHECK(to_f8(std::numeric_limits<float>::quiet_NaN()) == 0x7f);
}

TEST_CASE("oracle: an e4m3 element is the stored one times the scale, rounded once") {
  const std::vector<float> row{1.0f, -0.3f, 0.0f};
  const float scale = 0.0371f;
  const auto values = stored(Format::kF8E4M3, row, scale);
  const auto bytes = pack(Format::kF8E4M3, values, scale);
  REQUIRE(bytes.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const float element = from_f8(static_cast<uint8_t>(bytes[i]));
    CHECK(values[i] == static_cast<float>(static_cast<double>(element) * scale));
    CHECK(std::fabs(values[i] - row[i]) <= std::fabs(row[i]) / 16);
  }
}

TEST_CASE("oracle: a q8_0 block is 34 bytes, an f16 of the largest magnitude over 127 first") {
  std::vector<float> row(64);
  for (int i = 0; i < 64; ++i)
    row[static_cast<std::size_t>(i)] = i < 32 ? static_cast<float>(i - 20) * 0.25f : 0.0f;
  const auto values = stored(Format::kQ8_0, row, 1);
  const auto bytes = pack(Format::kQ8_0, row, 1);
  REQUIRE(bytes.size() == 68);
  uint16_t scale;
  std::memcpy(&scale, bytes.data(), 2);
  CHECK(from_f16(scale) == from_f16(to_f16(5.0f / 127)));
  CHECK(static_cast<int8_t>(bytes[2]) == -127);
  CHECK(static_cast<int8_t>(bytes[2 + 20]) == 0);
  CHECK(values[0] == -127 * from_f16(scale));
  for (std::size_t i = 34; i < 68; ++i)
    CHECK(bytes[i] == std::byte{0});  // nothing but zeros: scale 0
  // What was read can be stored again.
  CHECK(pack(Format::kQ8_0, values, 1) == bytes);
  CHECK(stored(Format::kQ8_0, values, 1) == values);
  row[40] = std::numeric_limits<float>::infinity();
  const auto broken = stored(Format::kQ8_0, row, 1);
  CHECK(std::isfinite(broken[31]));
  CHECK(std::isnan(broken[32]));
}
