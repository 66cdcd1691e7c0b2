// The caches of host engines on the CPU: what they hand over gets the oracle's answer.
#include <doctest/doctest.h>

#include "tests/conformance/engines.hpp"

namespace adamas::tests {

TEST_CASE("cpu: caches and tables of host engines") { check_engines(Context("cpu")); }

}  // namespace adamas::tests
