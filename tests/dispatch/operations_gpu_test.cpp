// Every operation against the oracle on the GPU: the scenarios that the CPU passes.
#include <doctest/doctest.h>

#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

TEST_CASE("cuda: fixed scenarios") {
  const Context context("cuda:0");
  for (const Scenario& scenario : fixed_scenarios())
    check_scenario(context, scenario);
}

TEST_CASE("cuda: random scenarios") {
  const Context context("cuda:0");
  for (std::uint64_t seed = 1; seed <= 24; ++seed)
    check_scenario(context, random_scenario(seed));
}

}  // namespace adamas::tests
