// Whole numbers rounded up: how many pieces cover a number, and the next multiple.
#pragma once

#include <cstdint>

namespace adamas::codegen {

/// Pieces of size b > 0 that cover a >= 0.
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// The least multiple of `multiple` > 0 that is not below `value` >= 0.
constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

}  // namespace adamas::codegen
