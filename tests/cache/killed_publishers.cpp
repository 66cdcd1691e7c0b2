// See killed_publishers.hpp.
#include "tests/cache/killed_publishers.hpp"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <string>

#include "tests/cache/support.hpp"

namespace adamas::tests {
namespace {

using namespace adamas::runtime;

/// Big enough that the write of a file takes a while, of a size that differs from key to key.
std::vector<std::byte> large_binary(const CacheKey& key) {
  const std::string digest = key.digest();
  std::string text;
  const std::size_t bytes = 1000 + std::stoul(digest.substr(0, 5), nullptr, 16);
  while (text.size() < bytes)
    text += digest;
  return bytes_of(text);
}

CacheKey numbered_key(int number) {
  return key_for("x86-64-v3", "int kernel" + std::to_string(number) + ";");
}

CompileResult compile_large(const CacheKey& key) {
  CompileResult result;
  result.binary = large_binary(key);
  result.compiler = "cc 1";
  return result;
}

constexpr int kKeys = 12;

/// The child's whole life: nothing of the test framework may run in it.
[[noreturn]] void publish_for_ever(const std::string& directory, unsigned seed) {
  std::mt19937 random(seed);
  for (;;) {
    Cache cache(directory, {});
    for (int i = 0; i < kKeys; ++i) {
      const CacheKey key = numbered_key(static_cast<int>(random() % kKeys));
      cache.reject(key, cache.get({key}, compile_large));  // removed, so that the next round publishes anew
      cache.get({key}, compile_large);
    }
  }
}

}  // namespace

void check_killed_publishers(int rounds, unsigned seed) {
  const ScratchFolder folder;
  std::mt19937 random(seed);
  int found = 0;
  for (int round = 0; round < rounds; ++round) {
    CAPTURE(round);
    const unsigned child_seed = random();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) publish_for_ever(folder / "cache", child_seed);
    ::usleep(500 + random() % 12'000);
    REQUIRE(::kill(child, SIGKILL) == 0);
    REQUIRE(::waitpid(child, nullptr, 0) == child);

    Log log;
    Cache cache(CacheOptions{
        .directory = folder / "cache", .lock_wait = std::chrono::milliseconds(20), .log = log.sink()});
    for (int i = 0; i < kKeys; ++i) {
      const CacheKey key = numbered_key(i);
      if (const CacheEntry entry = cache.find({key}); entry.binary) {
        ++found;
        REQUIRE(*entry.binary == large_binary(key));
      } else if (round % 8 == 0) {
        REQUIRE(*cache.get({key}, compile_large).binary == large_binary(key));
      }
    }
    REQUIRE(cache.stats().waits == 0);  // no lock outlived its process
    for (const std::string& warning : log.warnings())
      FAIL_CHECK(warning);
  }
  CHECK(found > rounds);  // the killed ones had published
}

}  // namespace adamas::tests
