// The cache as its users see it: what is found where, who compiles, and what failures leave behind.
#include "runtime/cache/cache.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <latch>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "codegen/error.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;
using adamas::codegen::Error;
using Origin = CacheEntry::Origin;

TEST_CASE("first compiled, then in memory, then on disk for the next process") {
  const ScratchFolder folder;
  Log log;
  CountingCompiler compiler;
  const CacheKey key = key_for("x86-64-v3");
  {
    Cache cache(folder / "cache", log.sink());
    CHECK(cache.directory() == folder / "cache");
    CHECK_FALSE(cache.find({key}).binary);
    const CacheEntry made = cache.get({key}, std::ref(compiler));
    CHECK(made.origin == Origin::compiled);
    CHECK(*made.binary == CountingCompiler::binary_for(key));
    CHECK(made.target == "x86-64-v3");
    CHECK(made.compiler == compiler.identity);
    CHECK(fs::exists(made.path));
    const CacheEntry again = cache.get({key}, std::ref(compiler));
    CHECK(again.origin == Origin::memory);
    CHECK(again.binary == made.binary);
    const CacheStats stats = cache.stats();
    CHECK(stats.entries == 1);
    CHECK(stats.bytes == fs::file_size(made.path));
    CHECK(stats.compiles == 1);
    CHECK(stats.misses == 2);  // find and the first get
    CHECK(stats.hits_memory == 1);
  }
  Cache next(folder / "cache", log.sink());
  const CacheEntry found = next.get({key}, std::ref(compiler));
  CHECK(found.origin == Origin::disk);
  CHECK(*found.binary == CountingCompiler::binary_for(key));
  CHECK(found.compile_ms == 12.5);
  CHECK(found.compiler == compiler.identity);
  CHECK(next.stats().hits_disk == 1);
  CHECK(next.find({key}).origin == Origin::memory);
  CHECK(compiler.compiles == 1);
  CHECK(log.warnings().empty());
}

TEST_CASE("an entry another machine made for a target further down the list is found without a compiler") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache(folder / "cache", {}).get({key_for("x86-64-v3")}, std::ref(compiler));

  Cache cache(folder / "cache", {});
  const auto no_compiler = [](const CacheKey&) -> CompileResult {
    throw std::logic_error("must not compile");
  };
  const CacheEntry found =
      cache.get({key_for("x86-64:znver4:+avx512f"), key_for("x86-64-v4"), key_for("x86-64-v3")}, no_compiler);
  CHECK(found.origin == Origin::disk);
  CHECK(found.target == "x86-64-v3");
}

TEST_CASE("on a miss the first target is compiled, and the better target wins once it exists") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  const std::vector<CacheKey> keys{key_for("x86-64-v4"), key_for("x86-64-v3")};
  CHECK(Cache(folder / "cache", {}).get(keys, std::ref(compiler)).target == "x86-64-v4");
  Cache(folder / "cache", {}).get({keys[1]}, std::ref(compiler));
  CHECK(compiler.compiles == 2);
  CHECK(Cache(folder / "cache", {}).get(keys, std::ref(compiler)).target == "x86-64-v4");
  CHECK(compiler.compiles == 2);
}

TEST_CASE("entries of two compilers lie side by side and the newest answers") {
  const ScratchFolder folder;
  const CacheKey key = key_for("x86-64-v3");
  const auto compile_as = [](const std::string& identity) {
    return [identity](const CacheKey&) { return CompileResult{bytes_of("by " + identity), "", identity, 1}; };
  };
  const CacheEntry old_entry = Cache(folder / "cache", {}).get({key}, compile_as("cc 1"));
  {
    // A process that never saw the first compiler's entry publishes a second one.
    const ScratchFolder elsewhere;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const CacheEntry entry = Cache(elsewhere / "cache", {}).get({key}, compile_as("cc 2"));
    fs::copy_file(entry.path, fs::path(old_entry.path).parent_path() / fs::path(entry.path).filename());
  }
  Cache cache(folder / "cache", {});
  CHECK(cache.stats().entries == 2);
  const CacheEntry newest = cache.find({key});
  CHECK(*newest.binary == bytes_of("by cc 2"));

  // The loader refuses the newest: the other one is next.
  cache.reject(key, newest);
  CHECK(cache.stats().entries == 1);
  CHECK(cache.stats().rejected == 1);
  CHECK(*cache.find({key}).binary == bytes_of("by cc 1"));
}

TEST_CASE("a rejected entry is removed and compiled once more") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  const CacheKey key = key_for("x86-64-v3");
  Cache cache(folder / "cache", {});
  const CacheEntry entry = cache.get({key}, std::ref(compiler));
  cache.reject(key, entry);
  CHECK_FALSE(fs::exists(entry.path));
  CHECK(cache.get({key}, std::ref(compiler)).origin == Origin::compiled);
  CHECK(compiler.compiles == 2);
}

TEST_CASE("a rejection leaves a file alone that holds other bytes by now") {
  const ScratchFolder folder;
  const CacheKey key = key_for("x86-64-v3");
  const auto compile_to = [](const std::string& text) {
    return [text](const CacheKey&) { return CompileResult{bytes_of(text), "", "cc", 1}; };
  };
  Cache cache(folder / "cache", {});
  const CacheEntry refused = cache.get({key}, compile_to("old"));
  // Meanwhile another process with the same compiler replaced the file.
  fs::remove(refused.path);
  Cache(folder / "cache", {}).get({key}, compile_to("new"));
  cache.reject(key, refused);
  CHECK(fs::exists(refused.path));
  CHECK(*cache.find({key}).binary == bytes_of("new"));
}

TEST_CASE("eight threads, one compile") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache cache(folder / "cache", {});
  const auto slow = [&](const CacheKey& key) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return compiler(key);
  };
  std::latch start(8);
  std::vector<std::future<CacheEntry>> results;
  for (int i = 0; i < 8; ++i)
    results.push_back(std::async(std::launch::async, [&] {
      start.arrive_and_wait();
      return cache.get({key_for("x86-64-v3")}, slow);
    }));
  int compiled = 0;
  for (auto& result : results) {
    const CacheEntry entry = result.get();
    CHECK(*entry.binary == CountingCompiler::binary_for(key_for("x86-64-v3")));
    compiled += entry.origin == Origin::compiled;
  }
  CHECK(compiler.compiles == 1);
  CHECK(compiled == 1);
  CHECK(cache.stats().hits_memory == 7);
}

TEST_CASE("different keys compile at the same time") {
  Cache cache("", {});
  std::latch both(2);
  // Each waits for the other inside its compile: one lock around both would never end.
  const auto meet = [&](const CacheKey& key) {
    both.arrive_and_wait();
    return CompileResult{bytes_of(key.target), "", "cc", 1};
  };
  auto first = std::async(std::launch::async, [&] { return cache.get({key_for("x86-64-v3")}, meet); });
  const CacheEntry second = cache.get({key_for("x86-64-v4")}, meet);
  CHECK(*first.get().binary == bytes_of("x86-64-v3"));
  CHECK(*second.binary == bytes_of("x86-64-v4"));
}

TEST_CASE("a compile that fails tells everybody who waits, is not stored, and is tried again") {
  const ScratchFolder folder;
  Cache cache(folder / "cache", {});
  std::atomic<int> attempts{0};
  // Ends when all eight calls have been made, so that seven of them wait for this very compile.
  std::latch called(8);
  const auto failing = [&](const CacheKey&) -> CompileResult {
    ++attempts;
    called.wait();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    throw Error(ADAMAS_COMPILE_FAILED, "source", "unit.cc", "refused for the test");
  };
  std::vector<std::future<std::exception_ptr>> results;
  for (int i = 0; i < 8; ++i)
    results.push_back(std::async(std::launch::async, [&]() -> std::exception_ptr {
      called.count_down();
      try {
        cache.get({key_for("x86-64-v3")}, failing);
      } catch (...) {
        return std::current_exception();
      }
      return nullptr;
    }));
  std::vector<std::exception_ptr> errors;
  for (auto& result : results)
    errors.push_back(result.get());
  for (const std::exception_ptr& error : errors) {
    REQUIRE(error != nullptr);
    CHECK(error == errors.front());  // the very same
    CHECK_THROWS_WITH_AS(std::rethrow_exception(error), "source=unit.cc: refused for the test", Error);
  }
  CHECK(attempts == 1);
  CHECK(files_below(folder.path()).empty());

  CountingCompiler compiler;
  CHECK(cache.get({key_for("x86-64-v3")}, std::ref(compiler)).origin == Origin::compiled);
}

TEST_CASE("an empty binary is the compiler's bug, not an entry") {
  Cache cache("", {});
  CHECK_THROWS_AS(cache.get({key_for("x86-64-v3")}, [](const CacheKey&) { return CompileResult{}; }), Error);
  CHECK_FALSE(cache.find({key_for("x86-64-v3")}).binary);
}

TEST_CASE("memory only") {
  Log log;
  CountingCompiler compiler;
  Cache cache("", log.sink());
  const CacheEntry made = cache.get({key_for("x86-64-v3")}, std::ref(compiler));
  CHECK(made.path.empty());
  CHECK(cache.get({key_for("x86-64-v3")}, std::ref(compiler)).origin == Origin::memory);
  CHECK(compiler.compiles == 1);
  CHECK(cache.directory().empty());
  CHECK(cache.list().empty());
  CHECK(cache.clear() == 0);
  CHECK(log.warnings().empty());  // it was asked for
}

TEST_CASE("list shows what each entry is") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache cache(folder / "cache", {});
  const CacheEntry entry = cache.get({key_for("x86-64-v3")}, std::ref(compiler));
  cache.get({key_for("x86-64-v4")}, std::ref(compiler));
  const std::vector<CacheListing> entries = cache.list();
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].digest == key_for("x86-64-v3").digest());
  CHECK(entries[0].unit == "select");
  CHECK(entries[0].spec == "head_dim=128");
  CHECK(entries[0].tuning == "chunk=64");
  CHECK(entries[0].target == "x86-64-v3");
  CHECK(entries[0].compiler == compiler.identity);
  CHECK(entries[0].bytes == fs::file_size(entry.path));
  CHECK(entries[0].compile_ms == 12.5);
  CHECK(entries[0].path == entry.path);
  CHECK(entries[1].target == "x86-64-v4");
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto age = std::chrono::duration_cast<std::chrono::microseconds>(now).count() - entries[1].created_us;
  CHECK(age >= 0);
  CHECK(age < 60'000'000);
}

TEST_CASE("clear removes our entries and leavings, and nothing else") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache cache(folder / "cache", {});
  const CacheEntry entry = cache.get({key_for("x86-64-v3")}, std::ref(compiler));
  cache.get({key_for("x86-64-v4")}, std::ref(compiler));
  const fs::path shard = fs::path(entry.path).parent_path();
  write_file(shard / ".123-0-abcdef01.adamas-tmp", bytes_of("left by a process that died"));
  write_file(shard / "notes.txt", bytes_of("mine"));
  write_file(fs::path(cache.directory()) / "README", bytes_of("mine"));
  fs::create_directory(fs::path(cache.directory()) / "failed");
  write_file(fs::path(cache.directory()) / "failed/unit.cc", bytes_of("mine"));
  CHECK(cache.clear() == 2);
  CHECK(cache.stats().entries == 0);
  const std::vector<fs::path> left = files_below(folder.path());
  CHECK(left.size() == 3);
  CHECK(std::ranges::count(left, shard / "notes.txt") == 1);
}
