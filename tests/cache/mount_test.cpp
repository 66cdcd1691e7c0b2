// The cache on file systems in trouble: full, read-only, noexec. Real ones, in a mount namespace.
#include <doctest/doctest.h>
#include <sys/mount.h>

#include <string>

#include <adamas/adamas.hpp>

#include "runtime/cache/cache.hpp"
#include "tests/cache/mount_namespace.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::tests;
namespace runtime = adamas::runtime;
using Origin = runtime::CacheEntry::Origin;

namespace {

runtime::CacheKey numbered_key(int number) {
  return key_for("x86-64-v3", "kernel " + std::to_string(number));
}

runtime::CompileResult compile_20_kb(const runtime::CacheKey& key) {
  return {
      .binary = std::vector<std::byte>(20'000, std::byte(key.source.back())), .log = "", .compiler = "cc 1"};
}

}  // namespace

TEST_CASE("a full disk: kernels stay in memory, one warning, no leavings; with room again they are stored") {
  const ScratchFolder folder;
  in_mount_namespace(folder.path(), 0, "size=100k,mode=0700", [&](Expectations& expect) {
    Log log;
    runtime::Cache cache(folder / "cache", log.sink());
    int stored = 0;
    for (int i = 0; i < 9; ++i) {
      const runtime::CacheEntry entry = cache.get({numbered_key(i)}, compile_20_kb);
      expect.that(*entry.binary == compile_20_kb(numbered_key(i)).binary, "the bytes that were compiled");
      stored += !entry.path.empty();
    }
    expect.that(stored >= 1 && stored <= 4, "the disk holds a few");
    expect.that(log.warnings().size() == 1, "one warning");
    expect.that(files_below(folder.path()).size() == static_cast<std::size_t>(stored), "no torn file");
    for (int i = 0; i < 9; ++i) {
      runtime::Cache other(folder / "cache", {});
      const auto found = other.find({numbered_key(i)});
      expect.that(!found.binary || *found.binary == compile_20_kb(numbered_key(i)).binary, "whole or absent");
    }
    cache.clear();
    expect.that(!cache.get({numbered_key(20)}, compile_20_kb).path.empty(), "stored once there is room");
  });
}

TEST_CASE("a disk without room even for the folder: memory only, one warning") {
  const ScratchFolder folder;
  in_mount_namespace(folder.path(), 0, "size=4k,nr_inodes=1,mode=0700", [&](Expectations& expect) {
    Log log;
    runtime::Cache cache(folder / "cache", log.sink());
    expect.that(cache.get({numbered_key(0)}, compile_20_kb).path.empty(), "in memory");
    expect.that(cache.get({numbered_key(0)}, compile_20_kb).origin == Origin::memory, "found there");
    expect.that(log.warnings().size() == 1, "one warning");
  });
}

TEST_CASE("a read-only file system is read; what is new stays in memory; one warning") {
  const ScratchFolder folder;
  in_mount_namespace(folder.path(), 0, "size=1m,mode=0700", [&](Expectations& expect) {
    runtime::Cache(folder / "cache", {}).get({numbered_key(0)}, compile_20_kb);
    expect.that(remount(folder.path(), MS_RDONLY), "remount");
    Log log;
    runtime::Cache cache(folder / "cache", log.sink());
    expect.that(cache.get({numbered_key(0)}, compile_20_kb).origin == Origin::disk, "found on disk");
    expect.that(log.warnings().empty(), "reading needs no warning");
    for (int i = 1; i < 4; ++i)
      expect.that(cache.get({numbered_key(i)}, compile_20_kb).path.empty(), "in memory");
    expect.that(log.warnings().size() == 1, "one warning");
    expect.that(cache.prune(1).removed == 0, "nothing can be removed");
  });
}

TEST_CASE("a noexec file system holds CPU kernels as well as any: objects are loaded from memory") {
  const ScratchFolder folder;
  in_mount_namespace(folder.path(), MS_NOEXEC | MS_NOSUID, "size=1m,mode=0700", [&](Expectations& expect) {
    const std::string directory = folder / "cache";
    const adamas::Capacity capacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 16};
    for (const int expected_compiles : {3, 0}) {
      const adamas::Context context(
          adamas::ContextOptions{.device = "cpu", .cache_dir = directory.c_str(), .threads = 1});
      const adamas::Kernel kernel = context.prepare("head_dim=16 budget=4", capacity);
      expect.that(kernel.info().compiles == expected_compiles, "compiled once, then found");
      const auto codes = context.allocate<char>(kernel.info().code_bytes);
      const std::vector<std::uint8_t> bytes(16 * 16, 2);
      auto in = context.upload<std::uint8_t>(bytes), out = context.allocate<std::uint8_t>(bytes.size());
      kernel.codes_import({.codes = codes.data(), .bytes = in.data(), .count = 16});
      kernel.codes_export({.codes = codes.data(), .bytes = out.data(), .count = 16});
      expect.that(out.download() == bytes, "the kernels run");
    }
  });
}
