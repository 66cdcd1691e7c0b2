// Several processes, or caches as good as processes, on one folder: turns to compile, waits that end, totals.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <latch>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "runtime/cache/state.hpp"
#include "runtime/compile/subprocess.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/killed_publishers.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;
using Origin = CacheEntry::Origin;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

const CacheKey kKey = key_for("x86-64-v3");

}  // namespace

TEST_CASE("16 processes that want one kernel: one compiles, 15 get what it made") {
  const ScratchFolder folder;
  const Environment variable("ADAMAS_CACHE_DIR", folder / "cache");
  std::latch start(16);
  std::vector<std::future<SubprocessResult>> runs;
  for (int i = 0; i < 16; ++i)
    runs.push_back(std::async(std::launch::async, [&] {
      start.arrive_and_wait();
      return run_subprocess(
          {ADAMAS_CLI, "compile", "--spec", "head_dim=64 budget=16", "--unit", "encode", "--json"}, "",
          std::chrono::seconds(120));
    }));
  int compiles = 0;
  for (auto& run : runs) {
    const SubprocessResult result = run.get();
    CAPTURE(result.diagnostics);
    REQUIRE(result.exit_status == 0);
    compiles += nlohmann::json::parse(result.output).at("compiles").get<int>();
  }
  CHECK(compiles == 1);
  const CacheTotals totals = Cache(folder / "cache", {}).totals();
  CHECK(totals.compiles == 1);
  CHECK(totals.hits_disk == 15);
  CHECK(totals.wait_timeouts == 0);
}

TEST_CASE("a cache waits for the one that compiles, and takes what it published") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache first(folder / "cache", {}), second(folder / "cache", {});
  std::latch compiling(1);
  auto made = std::async(std::launch::async, [&] {
    return first.get({kKey}, [&](const CacheKey& key) {
      compiling.count_down();
      std::this_thread::sleep_for(milliseconds(100));
      return compiler(key);
    });
  });
  compiling.wait();
  const CacheEntry entry = second.get({kKey}, std::ref(compiler));
  CHECK(entry.origin == Origin::disk);
  CHECK(made.get().origin == Origin::compiled);
  CHECK(compiler.compiles == 1);
  CHECK(second.stats().waits == 1);
  CHECK(second.stats().wait_timeouts == 0);
}

TEST_CASE("a wait is bounded: then the kernel is compiled privately, with one warning") {
  const ScratchFolder folder;
  Log log;
  CountingCompiler compiler;
  Cache first(folder / "cache", {});
  Cache second(CacheOptions{.directory = folder / "cache", .lock_wait = milliseconds(30), .log = log.sink()});
  std::latch compiling(1), end(1);
  auto stuck = std::async(std::launch::async, [&] {
    return first.get({kKey}, [&](const CacheKey& key) {
      compiling.count_down();
      end.wait();
      return compiler(key);
    });
  });
  compiling.wait();
  const auto start = Clock::now();
  CHECK(second.get({kKey}, std::ref(compiler)).origin == Origin::compiled);
  CHECK(Clock::now() - start < std::chrono::seconds(5));
  CHECK(second.stats().waits == 1);
  CHECK(second.stats().wait_timeouts == 1);
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find("head_dim=128") != std::string::npos);
  end.count_down();
  CHECK(stuck.get().origin == Origin::compiled);
}

TEST_CASE("a failed compile lets the next in line try") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  Cache first(folder / "cache", {}), second(folder / "cache", {});
  std::latch compiling(1);
  auto failing = std::async(std::launch::async, [&] {
    CHECK_THROWS(first.get({kKey}, [&](const CacheKey&) -> CompileResult {
      compiling.count_down();
      std::this_thread::sleep_for(milliseconds(50));
      throw std::runtime_error("refused for the test");
    }));
  });
  compiling.wait();
  CHECK(second.get({kKey}, std::ref(compiler)).origin == Origin::compiled);
  failing.get();
}

TEST_CASE("the lock of a stopped process is waited for, that of a dead one is free") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  int started[2];
  REQUIRE(::pipe(started) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    Cache(folder / "cache", {}).get({kKey}, [&](const CacheKey&) -> CompileResult {
      if (::write(started[1], "x", 1) != 1) ::_exit(1);
      for (;;)
        ::pause();
    });
  }
  char byte = 0;
  REQUIRE(::read(started[0], &byte, 1) == 1);
  REQUIRE(::kill(child, SIGSTOP) == 0);
  Cache impatient(CacheOptions{.directory = folder / "cache", .lock_wait = milliseconds(10)});
  CHECK(impatient.get({kKey}, std::ref(compiler)).origin == Origin::compiled);
  CHECK(impatient.stats().wait_timeouts == 1);
  impatient.clear();

  REQUIRE(::kill(child, SIGKILL) == 0);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  ::close(started[0]);
  ::close(started[1]);
  Cache next(folder / "cache", {});
  CHECK(next.get({kKey}, std::ref(compiler)).origin == Origin::compiled);
  CHECK(next.stats().waits == 0);
}

TEST_CASE("publishers killed at random points leave a usable cache") { check_killed_publishers(25, 972); }

TEST_CASE("a folder's totals are what all its caches counted") {
  const ScratchFolder folder;
  CountingCompiler compiler;
  {
    Cache cache(folder / "cache", {});
    cache.get({kKey}, std::ref(compiler));
    cache.get({kKey}, std::ref(compiler));
    CHECK(cache.totals().compiles == 1);  // told at once: a compile is dear
  }
  for (int i = 0; i < 3; ++i)
    Cache(folder / "cache", {}).get({kKey}, std::ref(compiler));
  const CacheTotals totals = Cache(folder / "cache", {}).totals();
  CHECK(totals.compiles == 1);
  CHECK(totals.misses == 1);
  CHECK(totals.hits_memory == 1);
  CHECK(totals.hits_disk == 3);
  CHECK(totals.since_us > 0);

  SUBCASE("a damaged state file counts from zero, and locks still work") {
    write_file(folder / "cache/.adamas-state", bytes_of("nonsense"));
    CHECK(Cache(folder / "cache", {}).totals() == CacheTotals{});
    CHECK(Cache(folder / "cache", {}).get({key_for("x86-64-v4")}, std::ref(compiler)).origin ==
          Origin::compiled);
    CHECK(Cache(folder / "cache", {}).totals().compiles == 1);
  }
  SUBCASE("a link in the state file's place is not followed") {
    fs::remove(folder / "cache/.adamas-state");
    write_file(folder / "victim", bytes_of("mine"));
    fs::create_symlink(folder / "victim", folder / "cache/.adamas-state");
    CHECK(Cache(folder / "cache", {}).get({key_for("x86-64-v4")}, std::ref(compiler)).origin ==
          Origin::compiled);
    CHECK(read_file(folder / "victim") == bytes_of("mine"));
  }
}

TEST_CASE("locks of keys are bytes of their own, beyond those with a meaning") {
  CHECK(lock_of_key(kKey.digest()) != lock_of_key(key_for("x86-64-v4").digest()));
  CHECK(lock_of_key("00000000000000000000000000000000") > kLockOfContents);
  CHECK(lock_of_key("ffffffffffffffffffffffffffffffff") > 0);
}
