// Every operation against the oracle on the GPU: the scenarios that the CPU passes.
#include <doctest/doctest.h>

#include <string>

#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

TEST_CASE_TEMPLATE("cuda: fixed scenarios", Part, ScenarioPart<0>, ScenarioPart<1>, ScenarioPart<2>,
                   ScenarioPart<3>) {
  check_fixed_scenarios(Context("cuda:0"), Part::kIndex);
}

// Chunks of rows that attend to all grow with the row, from the shortest to the longest.
TEST_CASE("cuda: long rows that attend to all") {
  const Context context("cuda:0");
  for (const std::string kv_type : {"f16", "f8e4m3fn"}) {
    check_scenario(context,
                   {.spec = "head_dim=16 group=2 budget=64 page_size=64 q_type=f16 kv_type=" + kv_type,
                    .lengths = {33001, 20000, 9000, 300},
                    .kv_heads = 8,
                    .dense_below = 25000,
                    .tuning = "dense_chunk=1024"});
  }
}

TEST_CASE("cuda: random scenarios") {
  const Context context("cuda:0");
  for (std::uint64_t seed = 1; seed <= 24; ++seed)
    check_scenario(context, random_scenario(seed));
}

}  // namespace adamas::tests
