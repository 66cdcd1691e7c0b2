// kill -9 at random points of publishing, often enough to hit each of its steps.
#include <doctest/doctest.h>

#include "tests/cache/killed_publishers.hpp"

TEST_CASE("600 publishers killed at random points leave a usable cache") {
  adamas::tests::check_killed_publishers(600, 189245);
}
