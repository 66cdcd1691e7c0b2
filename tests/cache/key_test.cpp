// Keys: every field counts, none runs into the next, and the digest is the same everywhere.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "runtime/cache/cache.hpp"

using adamas::runtime::CacheKey;

TEST_CASE("a key's text is its fields, each with its length") {
  const CacheKey key{"select", "head_dim=64", "", "int x;\n", "x86-64-v3", {"-a", "-bc"}};
  CHECK(key.text() ==
        "12:adamas key 1\n6:select\n11:head_dim=64\n0:\n7:int x;\n\n9:x86-64-v3\n1:2\n2:-a\n3:-bc\n");
}

TEST_CASE("a digest is stable: entries of one build are found by the next") {
  const CacheKey key{"select", "head_dim=64", "", "int x;\n", "x86-64-v3", {"-a", "-bc"}};
  CHECK(key.digest() == "f16ee07999a6c035b66dc4343eecf909");
}

TEST_CASE("every difference in any field gives another digest") {
  const CacheKey base{"a", "b", "c", "d", "e", {"f", "g"}};
  const std::vector<CacheKey> keys{
      base,
      {"A", "b", "c", "d", "e", {"f", "g"}},
      {"a", "B", "c", "d", "e", {"f", "g"}},
      {"a", "b", "C", "d", "e", {"f", "g"}},
      {"a", "b", "c", "D", "e", {"f", "g"}},
      {"a", "b", "c", "d", "E", {"f", "g"}},
      {"a", "b", "c", "d", "e", {"g", "f"}},  // options are ordered
      {"a", "b", "c", "d", "e", {"fg"}},
      {"a", "b", "c", "d", "e", {"f", "g", ""}},
      {"a", "b", "c", "d", "e", {"f"}},
      {"a", "b", "c", "d", "e", {}},
      {"ab", "", "c", "d", "e", {"f", "g"}},  // characters that moved to a neighbour
      {"a", "bc", "", "d", "e", {"f", "g"}},
      {"a", "b", "c\n1:d", "", "e", {"f", "g"}},
  };
  std::set<std::string> digests;
  for (const CacheKey& key : keys)
    digests.insert(key.digest());
  CHECK(digests.size() == keys.size());
}
