// The caches of host engines on the GPU: what they hand over gets the oracle's answer.
#include <doctest/doctest.h>

#include "tests/conformance/engines.hpp"

namespace adamas::tests {

TEST_CASE("cuda: caches and tables of host engines") { check_engines(Context("cuda:0")); }

}  // namespace adamas::tests
