// Every engine against the oracle: see engines.hpp.
#include "tests/conformance/engines.hpp"

#include <doctest/doctest.h>

namespace adamas::tests {

void check_engines(const Context& context) {
  const bool cuda = std::string(context.info().device) != "cpu";
  std::uint64_t seed = 100;
  for (const auto* const engines : {&paged_engines(), &row_engines()}) {
    for (const Engine& engine : *engines) {
      if (cuda && !engine.on_cuda) continue;
      INFO(std::string(engine.name));
      const Workload workload(engine.shape, ++seed);
      check_handover(context, workload, engine.build(context, workload));
    }
  }
}

}  // namespace adamas::tests
