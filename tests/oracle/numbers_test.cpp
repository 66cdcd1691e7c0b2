// Conversions between float and 16-bit formats, against facts that do not come from its code. The whole is
// checked in sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>

using namespace adamas::oracle;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST_SUITE("numbers") {
  TEST_CASE("every 16-bit pattern survives the way to float and back") {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto pattern = static_cast<uint16_t>(bits);
      if (std::isnan(from_f16(pattern))) {
        CHECK(std::isnan(from_f16(to_f16(from_f16(pattern)))));
      } else {
        REQUIRE(to_f16(from_f16(pattern)) == pattern);
      }
      if (std::isnan(from_bf16(pattern))) {
        CHECK(std::isnan(from_bf16(to_bf16(from_bf16(pattern)))));
      } else {
        REQUIRE(to_bf16(from_bf16(pattern)) == pattern);
      }
    }
  }

  TEST_CASE("halfway cases go to the even neighbour, all others to the nearer one") {
    // Between each pair of neighbours, positive and finite; a float holds the midpoint exactly.
    for (const Format format : {Format::kF16, Format::kBF16}) {
      const auto to = [&](float x) { return format == Format::kF16 ? to_f16(x) : to_bf16(x); };
      const auto from = [&](uint16_t b) { return format == Format::kF16 ? from_f16(b) : from_bf16(b); };
      const uint16_t infinity = format == Format::kF16 ? 0x7c00 : 0x7f80;
      for (uint16_t low = 0; low + 1 < infinity; ++low) {
        const uint16_t high = low + 1;
        const auto middle = static_cast<float>((static_cast<double>(from(low)) + from(high)) / 2);
        const uint16_t even = (low & 1) == 0 ? low : high;
        REQUIRE(to(middle) == even);
        REQUIRE(to(-middle) == (even | 0x8000));
        REQUIRE(to(std::nextafter(middle, 0.0f)) == low);
        REQUIRE(to(std::nextafter(middle, kInf)) == high);
      }
    }
  }

  TEST_CASE("known values") {
    CHECK(to_f16(1.0f) == 0x3c00);
    CHECK(to_f16(-2.0f) == 0xc000);
    CHECK(to_f16(65504.0f) == 0x7bff);
    CHECK(to_f16(65519.0f) == 0x7bff);
    CHECK(to_f16(65520.0f) == 0x7c00);
    CHECK(to_f16(0x1p-24f) == 1);
    CHECK(to_f16(0x1p-25f) == 0);
    CHECK(to_f16(-kInf) == 0xfc00);
    CHECK(to_bf16(1.0f) == 0x3f80);
    CHECK(to_bf16(std::numeric_limits<float>::max()) == 0x7f80);
    CHECK(std::isnan(from_bf16(to_bf16(std::bit_cast<float>(0x7f800001u)))));  // NaN with low bits only
  }
}
