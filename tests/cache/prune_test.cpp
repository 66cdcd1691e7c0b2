// The size of the folder: the cap, what goes first, how often, and what is left alone.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>
#include <ctime>
#include <string>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;
using Origin = CacheEntry::Origin;

namespace {

constexpr std::chrono::seconds kAlways{0}, kSeldom{20 * 60};

CacheKey numbered_key(int number) {
  return key_for("x86-64-v3", "int kernel" + std::to_string(number) + ";");
}

/// As if the file had last been used, or written, that many seconds ago.
void age(const fs::path& file, std::time_t seconds) {
  const struct timespec then{std::time(nullptr) - seconds, 0};
  const struct timespec times[2] = {then, then};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);
}

/// Entries 0 .. count - 1, the first used longest ago.
struct Filled {
  ScratchFolder folder;
  std::vector<fs::path> paths;
  std::uint64_t entry_bytes = 0;

  explicit Filled(int count) {
    CountingCompiler compiler;
    Cache cache(CacheOptions{.directory = directory(), .max_bytes = 0});
    for (int i = 0; i < count; ++i) {
      paths.emplace_back(cache.get({numbered_key(i)}, std::ref(compiler)).path);
      age(paths.back(), 1000 * (count - i));
    }
    entry_bytes = fs::file_size(paths[0]);
  }
  std::string directory() const { return folder / "cache"; }
};

}  // namespace

TEST_CASE("publishing prunes the least recently used entries down to the cap, and loading is use") {
  Filled filled(8);
  CountingCompiler compiler;
  CHECK(Cache(filled.directory(), {}).find({numbered_key(0)}).origin == Origin::disk);  // no longer the oldest
  Cache cache(CacheOptions{.directory = filled.directory(),
                           .max_bytes = 5 * filled.entry_bytes + 100,
                           .prune_interval = kAlways});
  CHECK(fs::exists(cache.get({numbered_key(8)}, std::ref(compiler)).path));
  CHECK(cache.stats().entries == 5);
  CHECK(cache.stats().pruned == 4);
  CHECK(fs::exists(filled.paths[0]));
  for (int i = 1; i <= 4; ++i)
    CHECK_FALSE(fs::exists(filled.paths[static_cast<std::size_t>(i)]));
  for (int i = 5; i < 8; ++i)
    CHECK(fs::exists(filled.paths[static_cast<std::size_t>(i)]));
  // What was pruned is still in the memory of who made it, and is compiled anew elsewhere.
  CHECK(Cache(filled.directory(), {}).get({numbered_key(1)}, std::ref(compiler)).origin == Origin::compiled);
}

TEST_CASE("listing and reading for other ends is no use") {
  Filled filled(3);
  const Cache cache(filled.directory(), {});
  const auto before = cache.list();
  CHECK(cache.list().size() == 3);
  const auto after = cache.list();
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(before[i].used_us == after[i].used_us);
    CHECK(before[i].used_us < before[i].created_us);
  }
}

TEST_CASE("the folder is pruned at most once an interval, whoever publishes") {
  Filled filled(4);
  CountingCompiler compiler;
  const auto publish = [&](int number, std::chrono::seconds interval) {
    Cache cache(CacheOptions{.directory = filled.directory(), .max_bytes = 1, .prune_interval = interval});
    cache.get({numbered_key(number)}, std::ref(compiler));
    return cache.stats();
  };
  CHECK(publish(4, kSeldom).entries == 0);  // never pruned before
  CHECK(publish(5, kSeldom).entries == 1);
  CHECK(publish(6, kSeldom).entries == 2);
  CHECK(publish(7, kAlways).entries == 0);
  CHECK(Cache(filled.directory(), {}).totals().pruned == 8);
}

TEST_CASE("prune removes only our own files, and leavings of dead processes") {
  Filled filled(3);
  const fs::path shard = filled.paths[0].parent_path();
  const std::vector<fs::path> others = {shard / "notes.txt", shard / "data.adamas", shard / ".hidden",
                                        fs::path(filled.directory()) / "README",
                                        fs::path(filled.directory()) / "failed.cc"};
  for (const fs::path& file : others) {
    write_file(file, bytes_of("mine"));
    age(file, 1'000'000);
  }
  const fs::path dead = shard / ".123-0-abcdef01.adamas-tmp", writing = shard / ".124-0-abcdef01.adamas-tmp";
  write_file(dead, bytes_of("left"));
  age(dead, 4000);
  write_file(writing, bytes_of("being written"));
  Cache cache(filled.directory(), {});
  SUBCASE("to a size") {
    const PruneReport report = cache.prune(1);
    CHECK(report.removed == 3);
    CHECK(report.removed_bytes == 3 * filled.entry_bytes);
    CHECK(report.kept == 0);
    CHECK(report.kept_bytes == 0);
  }
  SUBCASE("by age") {
    const PruneReport report = cache.prune(0, std::chrono::seconds(1500));
    CHECK(report.removed == 2);  // used 3000 and 2000 seconds ago
    CHECK(report.kept == 1);
    CHECK(fs::exists(filled.paths[2]));
  }
  SUBCASE("no cap, no age: nothing") { CHECK(cache.prune(0).removed == 0); }
  for (const fs::path& file : others)
    CHECK(fs::exists(file));
  CHECK_FALSE(fs::exists(dead));
  CHECK(fs::exists(writing));
}

TEST_CASE("the cap comes from the environment, a bad one is warned of once") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Log log;
  const auto entries_after_two = [&](const char* size) {
    const Environment variable("ADAMAS_CACHE_SIZE", size);
    Cache cache(CacheOptions{.directory = folder / "cache", .prune_interval = kAlways, .log = log.sink()});
    cache.get({numbered_key(0)}, std::ref(compiler));
    cache.get({numbered_key(1)}, std::ref(compiler));
    const std::uint64_t entries = cache.stats().entries;
    cache.clear();
    return entries;
  };
  CHECK(entries_after_two("1") == 0);
  CHECK(entries_after_two("1KiB") == 1);
  CHECK(entries_after_two("0") == 2);
  CHECK(log.warnings().empty());
  CHECK(entries_after_two("lots") == 2);
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find("ADAMAS_CACHE_SIZE=lots") != std::string::npos);
}

TEST_CASE("sizes as people write them") {
  CHECK(parse_bytes("0") == 0);
  CHECK(parse_bytes("1073741824") == 1073741824);
  CHECK(parse_bytes("512M") == 512u << 20);
  CHECK(parse_bytes("1.5 GiB") == 3u << 29);
  CHECK(parse_bytes("2k") == 2048);
  CHECK(parse_bytes("7B") == 7);
  for (const char* text : {"", "G", "-1", "1X", "1GiBs", "1e30", "nan", "inf", "99999999T", "0x10"})
    CHECK_FALSE(parse_bytes(text));
}
