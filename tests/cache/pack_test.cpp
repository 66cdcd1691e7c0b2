// Packs: what is found in them and in which order, what is refused, and that equal content is equal bytes.
#include "runtime/cache/pack.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "runtime/cache/cache.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/mutations.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;
using Origin = CacheEntry::Origin;

namespace {

const std::vector<CacheKey> kKeys{key_for("x86-64-v2"), key_for("x86-64-v3"), key_for("x86-64-v4")};

CompileResult no_compiler(const CacheKey&) { throw std::logic_error("must not compile"); }

/// A Cache without a folder, on these packs.
Cache pack_cache(const std::string& packs, Log* log = nullptr) {
  return Cache(CacheOptions{.directory = "", .packs = packs, .log = log ? log->sink() : LogFn{}});
}

}  // namespace

TEST_CASE("entries of a pack are found without folder and compiler, each checked") {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  const std::uint64_t bytes = write_pack(path, kKeys);
  CHECK(bytes == fs::file_size(path));
  Log log;
  Cache cache = pack_cache(path, &log);
  for (const CacheKey& key : kKeys) {
    const CacheEntry entry = cache.get({key}, no_compiler);
    CHECK(entry.origin == Origin::pack);
    CHECK(*entry.binary == CountingCompiler::binary_for(key));
    CHECK(entry.path == path);
    CHECK(entry.target == key.target);
    CHECK(entry.compiler == "test-cc 1.0");
    CHECK(cache.find({key}).origin == Origin::memory);
  }
  CHECK_FALSE(cache.find({key_for("sm_90a")}).binary);
  const CacheCounters counters = cache.counters();
  CHECK(counters.hits_pack == 3);
  CHECK(counters.hits_memory == 3);
  CHECK(counters.misses == 1);
  CHECK(log.warnings().empty());
}

TEST_CASE("packs come before the folder, the first of several first") {
  const ScratchFolder folder;
  write_pack(folder / "first.pack", {kKeys[0]});
  write_pack(folder / "second.pack", {kKeys[0], kKeys[1]});
  CountingCompiler compiler;
  Cache(folder / "cache", {}).get({kKeys[1]}, std::ref(compiler));
  Cache(folder / "cache", {}).get({kKeys[2]}, std::ref(compiler));
  const std::string list = (folder / "first.pack") + "::" + (folder / "second.pack");
  Cache cache(CacheOptions{.directory = folder / "cache", .packs = list});
  CHECK(cache.packs().size() == 2);
  CHECK(cache.find({kKeys[0]}).path == folder / "first.pack");
  CHECK(cache.find({kKeys[1]}).path == folder / "second.pack");
  CHECK(cache.find({kKeys[2]}).origin == Origin::disk);
  // A better target in the folder comes before another in a pack.
  Cache other(CacheOptions{.directory = folder / "cache", .packs = list});
  CHECK(other.find({kKeys[2], kKeys[0]}).origin == Origin::disk);

  const Environment variable("ADAMAS_PACKS", list);
  CHECK(Cache("", {}).find({kKeys[1]}).origin == Origin::pack);
  CHECK(pack_cache("").packs().empty());
}

TEST_CASE("what a loader refuses in a pack is not read again, and the next source is taken") {
  const ScratchFolder folder;
  write_pack(folder / "kernels.pack", kKeys);
  Cache cache = pack_cache(folder / "kernels.pack");
  cache.reject(kKeys[0], cache.find({kKeys[0]}));
  const auto compile_other = [](const CacheKey&) { return CompileResult{bytes_of("other"), "", "cc 2", 1}; };
  CHECK(*cache.get({kKeys[0]}, compile_other).binary == bytes_of("other"));
}

TEST_CASE("equal content gives equal bytes, in whatever order and at whatever time it came") {
  const ScratchFolder folder;
  const std::vector<PackedSet> sets{{"x86-64-v3", "head_dim=128", "chunk=64"}, {"sm_80", "head_dim=64", "chunk=8"}};
  write_pack(folder / "a", kKeys, sets);
  write_pack(folder / "b", {kKeys[2], kKeys[0], kKeys[1], kKeys[0]}, {sets[1], sets[0], sets[0]});
  CHECK(read_file(folder / "a") == read_file(folder / "b"));
  PackWriter writer;
  for (const CacheKey& key : kKeys) {
    const EntryInfo info{.digest = key.digest(), .unit = key.unit, .spec = key.spec, .tuning = key.tuning,
                         .target = key.target, .options = key.options, .compiler = "test-cc 1.0",
                         .compile_ms = 17, .created_us = 1'790'000'000'000'000};
    writer.add(info, key.text(), CountingCompiler::binary_for(key));
  }
  for (const PackedSet& set : sets)
    writer.add_set(set);
  CHECK(writer.entries() == 3);
  writer.write(folder / "c");
  CHECK(read_file(folder / "a") == read_file(folder / "c"));
}

TEST_CASE("a pack tells the Tuning that its kernels were made with") {
  const ScratchFolder folder;
  write_pack(folder / "one", {}, {{"sm_80", "head_dim=64", "chunk=8"}, {"sm_80", "head_dim=128", "chunk=16"}});
  write_pack(folder / "two", {}, {{"sm_80", "head_dim=64", "chunk=32"}, {"sm_90a", "head_dim=64", "chunk=64"}});
  const Cache cache = pack_cache((folder / "one") + ":" + (folder / "two"));
  REQUIRE(cache.packed_tuning("sm_80", "head_dim=64") != nullptr);
  CHECK(*cache.packed_tuning("sm_80", "head_dim=64") == "chunk=8");
  CHECK(*cache.packed_tuning("sm_80", "head_dim=128") == "chunk=16");
  CHECK(*cache.packed_tuning("sm_90a", "head_dim=64") == "chunk=64");
  CHECK(cache.packed_tuning("sm_90a", "head_dim=128") == nullptr);
  CHECK(cache.packed_tuning("sm_9", "head_dim=64") == nullptr);
}

TEST_CASE("a pack that must not be used is left out with one warning that says what to do") {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  write_pack(path, kKeys);
  std::string expected;
  std::string named = path;
  SUBCASE("absent") {
    named = folder / "nowhere.pack";
    expected = "nowhere.pack";
  }
  SUBCASE("writable by the group") {
    REQUIRE(::chmod(path.c_str(), 0664) == 0);
    expected = "chmod go-w";
  }
  SUBCASE("writable by all") {
    REQUIRE(::chmod(path.c_str(), 0646) == 0);
    expected = "chmod go-w";
  }
  SUBCASE("of another user") {
    if (::geteuid() != 0) return;
    REQUIRE(::chown(path.c_str(), 12345, static_cast<gid_t>(-1)) == 0);
    expected = "belongs to user 12345";
  }
  SUBCASE("a link") {
    named = folder / "link.pack";
    fs::create_symlink(path, named);
    expected = "symbolic link";
  }
  SUBCASE("a FIFO") {
    named = folder / "fifo.pack";
    REQUIRE(::mkfifo(named.c_str(), 0600) == 0);
    expected = "not a regular file";
  }
  SUBCASE("a folder") {
    named = folder.path().string();
    expected = "not a regular file";
  }
  SUBCASE("empty") {
    write_file(path, {});
    expected = "is no pack";
  }
  SUBCASE("something else") {
    write_file(path, std::vector<std::byte>(1000, std::byte{'x'}));
    expected = "is no pack";
  }
  SUBCASE("of another schema") {
    auto file = read_file(path);
    file[8] = std::byte{99};
    write_file(path, file);
    expected = "of schema 99";
  }
  SUBCASE("cut short") {
    fs::resize_file(path, fs::file_size(path) - 1);
    expected = "adamas precompile";
  }
  Log log;
  Cache cache = pack_cache(named, &log);
  CHECK(cache.packs().empty());
  CHECK_FALSE(cache.find({kKeys[0]}).binary);
  REQUIRE(log.warnings().size() == 1);
  CAPTURE(log.warnings()[0]);
  CHECK(log.warnings()[0].find(expected) != std::string::npos);
  CHECK(log.warnings()[0].find(named) != std::string::npos);
}

TEST_CASE("a damaged entry of a pack is a miss with one warning; the others are found") {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  write_pack(path, kKeys);
  auto file = read_file(path);
  file.back() ^= std::byte{1};
  write_file(path, file);
  Log log;
  Cache cache = pack_cache(path, &log);
  int found = 0;
  for (int again = 0; again < 2; ++again)
    for (const CacheKey& key : kKeys)
      found += cache.find({key}).binary != nullptr;
  CHECK(found == 4);
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find("damaged") != std::string::npos);
}

TEST_CASE("mutated packs never bring a wrong kernel") { check_mutated_packs(200, 4359); }

TEST_CASE("a pack that is cut short while it is in use is a miss, not a crash") {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  write_pack(path, kKeys);
  Log log;
  Cache cache = pack_cache(path, &log);
  fs::resize_file(path, 100);
  for (const CacheKey& key : kKeys)
    CHECK_FALSE(cache.find({key}).binary);
  CHECK(log.warnings().size() == 3);
}

TEST_CASE("a pack that is replaced while it is in use stays what it was for those who have it open") {
  const ScratchFolder folder;
  const std::string path = folder / "kernels.pack";
  write_pack(path, kKeys);
  Cache before = pack_cache(path);
  write_pack(path, {kKeys[1]});
  CHECK(before.find({kKeys[0]}).origin == Origin::pack);
  CHECK_FALSE(pack_cache(path).find({kKeys[0]}).binary);
}

TEST_CASE("an empty pack is a pack") {
  const ScratchFolder folder;
  write_pack(folder / "empty.pack", {});
  std::string problem;
  const auto pack = Pack::open(folder / "empty.pack", problem);
  REQUIRE(pack);
  CHECK(problem.empty());
  CHECK(pack->entries() == 0);
  CHECK(pack->sets().empty());
}

TEST_CASE("a pack that cannot be written is an error that names the path") {
  const ScratchFolder folder;
  try {
    write_pack(folder / "nowhere/kernels.pack", kKeys);
    FAIL("must throw");
  } catch (const adamas::codegen::Error& error) {
    CHECK(error.code() == ADAMAS_IO_ERROR);
    CHECK(error.value() == folder / "nowhere/kernels.pack");
  }
}
