// See mutations.hpp.
#include "tests/cache/mutations.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "runtime/cache/entry.hpp"
#include "tests/cache/support.hpp"

namespace adamas::tests {
namespace {

using namespace adamas::runtime;

/// A file that differs from the given one. @param head  bytes in front where damage does most
std::vector<std::byte> mutated(const std::vector<std::byte>& original, std::size_t head, int kind,
                               std::mt19937& random) {
  const auto pick = [&](std::size_t below) {
    return std::uniform_int_distribution<std::size_t>(0, below - 1)(random);
  };
  std::vector<std::byte> file = original;
  switch (kind % 4) {
    case 0:  // anywhere
      file[pick(file.size())] ^= std::byte{1} << pick(8);
      break;
    case 1:  // where the lengths are
      file[pick(head)] ^= std::byte{1} << pick(8);
      break;
    case 2:
      file.resize(pick(file.size()));
      break;
    case 3: {  // a block that never reached the disk
      const std::size_t begin = pick(file.size());
      std::fill(file.begin() + static_cast<std::ptrdiff_t>(begin), file.end(), std::byte{0});
      if (file == original) file.push_back(std::byte{0});
      break;
    }
  }
  return file;
}

}  // namespace

void check_mutated_entries(int rounds, unsigned seed) {
  const ScratchFolder folder;
  const CacheKey key = key_for("x86-64-v3");
  CountingCompiler original;
  const fs::path path = Cache(folder / "cache", {}).get({key}, std::ref(original)).path;
  const std::vector<std::byte> good = read_file(path);
  std::mt19937 random(seed);
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    write_file(path, mutated(good, kEntryHeaderBytes, round, random));
    Log log;
    CountingCompiler compiler;
    Cache cache(folder / "cache", log.sink());
    const CacheEntry got = cache.get({key}, std::ref(compiler));
    REQUIRE(compiler.compiles == 1);
    REQUIRE(*got.binary == CountingCompiler::binary_for(key));
    REQUIRE(log.warnings().size() <= 1);
    // Mended: the next process loads it.
    REQUIRE(Cache(folder / "cache", {}).find({key}).origin == CacheEntry::Origin::disk);
  }
}

void check_mutated_packs(int rounds, unsigned seed) {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  std::vector<CacheKey> keys;
  for (int i = 0; i < 6; ++i)
    keys.push_back(key_for("x86-64-v3", "kernel " + std::to_string(i)));
  write_pack(path, keys);
  const std::vector<std::byte> good = read_file(path);
  constexpr std::size_t kHeaderAndIndex = 56 + 6 * 48;
  std::mt19937 random(seed);
  int damaged = 0;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    write_file(path, mutated(good, kHeaderAndIndex, round, random));
    Log log;
    CountingCompiler compiler;
    Cache cache(CacheOptions{.directory = "", .packs = path, .log = log.sink()});
    for (const CacheKey& key : keys)
      REQUIRE(*cache.get({key}, std::ref(compiler)).binary == CountingCompiler::binary_for(key));
    // Told once for the pack as a whole, or once for each entry that is damaged.
    const auto warnings = static_cast<int>(log.warnings().size());
    REQUIRE((warnings == compiler.compiles || (warnings == 1 && compiler.compiles == 6)));
    damaged += compiler.compiles > 0;
  }
  CHECK(damaged > rounds * 9 / 10);  // all but those that hit bytes without a meaning
}

}  // namespace adamas::tests
