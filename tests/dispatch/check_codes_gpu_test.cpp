// check and rebuild on the GPU.
#include <doctest/doctest.h>

#include "tests/dispatch/check_codes.hpp"

namespace adamas::tests {

TEST_CASE("cuda: codes that fell out of step are found and mended") { check_stale_codes(Context("cuda:0")); }
TEST_CASE("cuda: bad arguments of check and rebuild") { check_bad_check_arguments(Context("cuda:0")); }

}  // namespace adamas::tests
