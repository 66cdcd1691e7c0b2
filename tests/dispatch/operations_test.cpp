// Every operation against the oracle on the CPU, with unreadable pages around every buffer.
#include <doctest/doctest.h>

#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

TEST_CASE("cpu: fixed scenarios") {
  const Context context("cpu");
  for (const Scenario& scenario : fixed_scenarios())
    check_scenario(context, scenario);
}

TEST_CASE("cpu: f32 keys and values") {
  const Context context("cpu");
  check_scenario(context, {.spec = "head_dim=64 kv_type=f32 budget=16 group=4", .lengths = {90, 20, 0}});
  check_scenario(context,
                 {.spec = "head_dim=80 kv_type=f32 budget=16 estimator=manhattan cache_form=contiguous",
                  .lengths = {90, 20}});
}

TEST_CASE("cpu: random scenarios") {
  const Context context("cpu");
  for (std::uint64_t seed = 1; seed <= 24; ++seed)
    check_scenario(context, random_scenario(seed));
}

}  // namespace adamas::tests
