// The oracle's transform, against facts that do not come from its code. The whole is checked in
// sample_test.cpp.
#include "tests/oracle/oracle.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

using namespace adamas::oracle;

namespace {

std::string data_file(const std::string& name) { return std::string(ADAMAS_TEST_DATA) + "/" + name; }

}  // namespace

TEST_SUITE("hadamard") {
  TEST_CASE("the matrices are Hadamard matrices with a first row of ones") {
    for (const int n : {1, 12, 20, 28}) {
      for (int r = 0; r < n; ++r) {
        CHECK(hadamard_entry(n, 0, r) == 1);
        for (int s = 0; s < n; ++s) {
          int dot = 0;
          for (int j = 0; j < n; ++j)
            dot += hadamard_entry(n, r, j) * hadamard_entry(n, s, j);
          REQUIRE(dot == (r == s ? n : 0));
        }
      }
    }
  }

  TEST_CASE("the matrices are those of the contract's file") {
    std::ifstream file(data_file("hadamard.txt"));
    REQUIRE(file.good());
    int matrices = 0;
    for (std::string line; std::getline(file, line);) {
      if (line.empty() || line[0] == '#') continue;
      std::istringstream words(line);
      int order = 0;
      char colon = 0;
      words >> order >> colon;
      for (int row = 0; row < order; ++row) {
        uint32_t bits = 0;
        REQUIRE((words >> std::hex >> bits));
        for (int j = 0; j < order; ++j) {
          REQUIRE(hadamard_entry(order, row, j) == (((bits >> j) & 1) != 0 ? -1 : 1));
        }
      }
      ++matrices;
    }
    CHECK(matrices == 3);
  }

  TEST_CASE("every size up to 512 is the product of the definition, and orthonormal") {
    Random random(7);
    int sizes = 0;
    for (const int order : {1, 12, 20, 28}) {
      for (int m = order; m <= 512; m *= 2) {
        ++sizes;
        const int radix2 = m / order;
        const std::vector<float> x = random_rows(random, RowKind::kInteger, 1, m, Format::kF32);
        const std::vector<float> y = hadamard(x, m);
        // Entry (r, i) of the Kronecker product; integers, so the sum before scaling is exact in float too.
        for (int r = 0; r < m; ++r) {
          int sum = 0;
          for (int i = 0; i < m; ++i) {
            const int walsh =
                std::popcount(static_cast<unsigned>((r % radix2) & (i % radix2))) % 2 == 0 ? 1 : -1;
            sum += walsh * hadamard_entry(order, r / radix2, i / radix2) * static_cast<int>(x[i]);
          }
          REQUIRE(y[r] ==
                  static_cast<float>(sum) * static_cast<float>(1 / std::sqrt(static_cast<double>(m))));
        }
      }
    }
    CHECK(sizes == 10 + 6 + 5 + 5);
  }

  TEST_CASE("blocks smaller than the head rotate on their own; a size of 1 changes nothing") {
    Random random(8);
    const std::vector<float> x = random_rows(random, RowKind::kNormal, 1, 96, Format::kF16);
    const std::vector<float> blocks = hadamard(x, 32);
    for (int b = 0; b < 3; ++b) {
      const std::vector<float> one = hadamard(std::span(x).subspan(32 * b, 32), 32);
      CHECK(std::equal(one.begin(), one.end(), blocks.begin() + 32 * b));
    }
    CHECK(hadamard(x, 1) == x);
    CHECK_THROWS(hadamard(x, 64));  // does not divide 96
    CHECK_THROWS(hadamard(x, 6));   // not 2^k * {1, 12, 20, 28}
  }

  TEST_CASE("rounding happens step by step, in the contract's order") {
    // 1 + 2^-24 rounds to 1 in the first butterfly; a wider or fused sum would keep it.
    const std::vector<float> y = hadamard(std::vector<float>{1, 0x1p-24f, 0, 0}, 4);
    CHECK(y == std::vector<float>{0.5f, 0.5f * (1 - 0x1p-24f), 0.5f, 0.5f * (1 - 0x1p-24f)});

    // Beside 2^24 a one is lost: what is left of it tells the order. Element 0 is the sum of all.
    const auto first = [](int m, std::initializer_list<float> leading) {
      std::vector<float> x(leading);
      x.resize(static_cast<size_t>(m));
      return hadamard(x, m)[0];
    };
    constexpr float kBig = 0x1p24f;
    CHECK(first(4, {kBig, 1, -kBig, 0}) == 0.0f);   // stride 1 before stride 2
    CHECK(first(24, {kBig, 1, -kBig, 0}) == 0.0f);  // radix 2 before the matrix
    CHECK(first(12, {kBig, 1, -kBig, 0}) == 0.0f);  // the matrix from the left
  }
}
