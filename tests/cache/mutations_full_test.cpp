// Damage in great number: what folder_test.cpp and pack_test.cpp sample.
#include <doctest/doctest.h>

#include "tests/cache/mutations.hpp"

TEST_CASE("12,000 mutations of an entry: none is loaded, none crashes") {
  adamas::tests::check_mutated_entries(12'000, 6968);
}

TEST_CASE("12,000 mutations of a pack: none is loaded, none crashes") {
  adamas::tests::check_mutated_packs(12'000, 2857);
}
