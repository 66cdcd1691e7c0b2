// Comparing with the oracle: see compare.hpp.
#include "tests/dispatch/compare.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace adamas::tests {

std::vector<float> read_floats(const DeviceMemory& memory, oracle::Format format) {
  if (format == oracle::Format::kF32) return memory.read<float>();
  return oracle::unpack16(format, memory.read<std::uint16_t>());
}

void check_rows(const std::vector<double>& want, const std::vector<float>& got, int row_elements,
                std::size_t first_row, oracle::Format format, const char* what) {
  // A row that a large sink logit leaves next to nothing is made of numbers below the normal ones of f16.
  const double rounding = std::sqrt(row_elements) * oracle::smallest_step(format) / 2;
  for (std::size_t row = 0; row * row_elements < want.size(); ++row) {
    double difference = 0, size = 0;
    for (int i = 0; i < row_elements; ++i) {
      const double w = want[row * row_elements + i], g = got[(first_row + row) * row_elements + i];
      difference += (w - g) * (w - g);
      size += w * w;
    }
    if (!std::isfinite(size))
      continue;  // the contract promises nothing for the values of a row that saw NaN or Inf
    INFO(std::string(what), " row-head ", first_row + row);
    if (size == 0) {
      CHECK(difference == 0);
    } else {
      CHECK(std::sqrt(difference) <= oracle::tolerance(format) * std::sqrt(size) + rounding);
    }
  }
}

void check_lse(const std::vector<double>& want, const std::vector<float>& got, std::size_t first,
               const char* what) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i]) || want[i] == std::numeric_limits<double>::infinity()) continue;
    INFO(std::string(what), " LSE of row-head ", first + i);
    if (std::isinf(want[i])) {
      CHECK(got[first + i] == -std::numeric_limits<float>::infinity());
    } else {
      CHECK(std::abs(got[first + i] - want[i]) <= 1e-4 * (1 + std::abs(want[i])));
    }
  }
}

}  // namespace adamas::tests
