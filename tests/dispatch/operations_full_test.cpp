// Many more random scenarios on the CPU than a quick run can afford.
#include <doctest/doctest.h>

#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

TEST_CASE("cpu: many random scenarios") {
  const Context context("cpu");
  for (std::uint64_t seed = 1000; seed < 1300; ++seed)
    check_scenario(context, random_scenario(seed));
}

}  // namespace adamas::tests
