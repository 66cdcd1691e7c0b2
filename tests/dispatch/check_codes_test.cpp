// check and rebuild on the CPU, and while a kernel is dense.
#include <doctest/doctest.h>

#include "tests/dispatch/check_codes.hpp"

namespace adamas::tests {

TEST_CASE("cpu: codes that fell out of step are found and mended") { check_stale_codes(Context("cpu")); }
TEST_CASE("cpu: bad arguments of check and rebuild") { check_bad_check_arguments(Context("cpu")); }

}  // namespace adamas::tests
