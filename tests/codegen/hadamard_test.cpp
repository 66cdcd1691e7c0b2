// Hadamard matrices and factors: orthogonality, the contract's file word for word, the rounding of the norm.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/facts.hpp"
#include "tests/codegen/spec_gen.hpp"

using namespace adamas::codegen;

namespace {

/// data/hadamard.txt, the line of that order.
std::vector<std::uint32_t> rows_in_file(int order) {
  std::ifstream file(std::string(ADAMAS_TEST_DATA) + "/hadamard.txt");
  REQUIRE(file.good());
  std::vector<std::uint32_t> rows;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(std::to_string(order) + ":")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;)
      rows.push_back(static_cast<std::uint32_t>(std::stoul(word, nullptr, 16)));
  }
  return rows;
}

/// Whether `norm` is the float nearest to 1/sqrt(m), decided in integers: with norm = n * 2^-e, the
/// neighbouring rounding boundaries are (2n -+ 1) * 2^-(e+1), and 1/sqrt(m) lies between them if their
/// squares times m lie around 1.
bool is_nearest_inverse_root(float norm, int m) {
  int exponent = 0;
  const float fraction = std::frexp(norm, &exponent);
  const auto n = static_cast<std::uint64_t>(std::ldexp(fraction, 24));
  const int e = 24 - exponent;
  const auto one = static_cast<unsigned __int128>(1) << (2 * (e + 1));
  const unsigned __int128 below = 2 * n - 1, above = 2 * n + 1;
  return below * below * static_cast<unsigned>(m) < one && above * above * static_cast<unsigned>(m) > one;
}

}  // namespace

TEST_CASE("the matrices are those of the contract's file") {
  for (const int order : {12, 20, 28}) {
    CAPTURE(order);
    const auto rows = hadamard_rows(order);
    const std::vector<std::uint32_t> expected = rows_in_file(order);
    REQUIRE(expected.size() == static_cast<std::size_t>(order));
    CHECK(std::vector(rows.begin(), rows.end()) == expected);
  }
}

TEST_CASE("H H^T = n I, and row 0 is all +1") {
  for (const int order : {1, 12, 20, 28}) {
    CAPTURE(order);
    const auto rows = hadamard_rows(order);
    REQUIRE(rows.size() == static_cast<std::size_t>(order));
    CHECK(rows[0] == 0);
    for (int r = 0; r < order; ++r) {
      CHECK((rows[r] >> order) == 0);
      for (int s = 0; s < order; ++s) {
        const int product = order - 2 * std::popcount(rows[r] ^ rows[s]);  // of rows of +-1
        CHECK(product == (r == s ? order : 0));
      }
    }
  }
  CHECK_THROWS_AS(hadamard_rows(16), Error);
}

TEST_CASE("the sizes of the contract up to 512, and no others") {
  std::vector<int> sizes;
  for (int m = -4; m <= 512; ++m) {
    if (is_hadamard_size(m)) sizes.push_back(m);
  }
  CHECK(sizes == kHadamardSizes);
  CHECK_THROWS_AS(hadamard_factors(36), Error);
  CHECK_THROWS_AS(hadamard_factors(0), Error);
}

TEST_CASE("factors multiply back, and the norm is the nearest float") {
  for (const int m : kHadamardSizes) {
    CAPTURE(m);
    const HadamardFactors factors = hadamard_factors(m);
    CHECK((factors.order << factors.log2) == m);
    CHECK((factors.order == 1 || factors.order == 12 || factors.order == 20 || factors.order == 28));
    CHECK(is_nearest_inverse_root(factors.norm, m));
    CHECK_FALSE(is_nearest_inverse_root(std::nextafter(factors.norm, 2.0f), m));
    CHECK_FALSE(is_nearest_inverse_root(std::nextafter(factors.norm, 0.0f), m));
  }
  CHECK(hadamard_factors(64).norm == 0.125f);
}
