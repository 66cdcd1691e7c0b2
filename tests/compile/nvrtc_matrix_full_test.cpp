// The whole NVRTC matrix.
#include <doctest/doctest.h>

#include "tests/compile/nvrtc_matrix.hpp"

TEST_CASE("nvrtc matrix: the whole product compiles without spills") {
  adamas::tests::check_matrix([](std::size_t, std::size_t, std::size_t, std::size_t) { return true; });
}
