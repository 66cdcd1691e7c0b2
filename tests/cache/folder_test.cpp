// The cache folder under attack and under trouble: damaged entries, other people's folders, links, full and
// read-only disks. Nothing of it may load a wrong binary, fail a call, or warn more than once.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/mutations.hpp"
#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;
using Origin = CacheEntry::Origin;

namespace {

const CacheKey kKey = key_for("x86-64-v3");

/// One entry in a fresh folder.
struct OneEntry {
  ScratchFolder folder;
  fs::path path;
  std::vector<std::byte> file;

  OneEntry() {
    CountingCompiler compiler;
    path = Cache(directory(), {}).get({kKey}, std::ref(compiler)).path;
    file = read_file(path);
  }
  std::string directory() const { return folder / "cache"; }
};

/// The folder cannot be used: get still works, from memory, and one warning names the path.
void check_memory_only(const std::string& directory, const std::string& expected_in_warning) {
  Log log;
  CountingCompiler compiler;
  Cache cache(directory, log.sink());
  CHECK(cache.directory().empty());
  CHECK(cache.get({kKey}, std::ref(compiler)).path.empty());
  CHECK(cache.get({kKey}, std::ref(compiler)).origin == Origin::memory);
  CHECK(compiler.compiles == 1);
  REQUIRE(log.warnings().size() == 1);
  CAPTURE(log.warnings()[0]);
  CHECK(log.warnings()[0].find(expected_in_warning) != std::string::npos);
  CHECK(log.warnings()[0].find("ADAMAS_CACHE_DIR") != std::string::npos);
}

/// Root may read and write everything; this makes it an ordinary user for a scope.
class OrdinaryUser {
 public:
  static constexpr uid_t kNobody = 65534;
  OrdinaryUser() {
    if (was_root_) REQUIRE(::seteuid(kNobody) == 0);
  }
  ~OrdinaryUser() {
    if (was_root_ && ::seteuid(0) != 0) std::abort();
  }
  OrdinaryUser(const OrdinaryUser&) = delete;
  OrdinaryUser& operator=(const OrdinaryUser&) = delete;

 private:
  bool was_root_ = ::geteuid() == 0;
};

void give_to(const fs::path& path, uid_t owner) {
  if (::geteuid() == 0) REQUIRE(::lchown(path.c_str(), owner, static_cast<gid_t>(-1)) == 0);
}

}  // namespace

TEST_CASE("no mutation of an entry is loaded, and each is mended by one compile") {
  check_mutated_entries(200, 2510);
}

TEST_CASE("a damaged entry is removed with one warning that names it") {
  OneEntry entry;
  std::vector<std::byte> file = entry.file;
  file.back() ^= std::byte{1};
  write_file(entry.path, file);
  Log log;
  Cache cache(entry.directory(), log.sink());
  CHECK_FALSE(cache.find({kKey}).binary);
  CHECK_FALSE(cache.find({kKey}).binary);
  CHECK_FALSE(fs::exists(entry.path));
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find(entry.path.string()) != std::string::npos);
  CHECK(log.warnings()[0].find("damaged") != std::string::npos);
}

TEST_CASE("an entry of another schema is neither loaded nor removed") {
  OneEntry entry;
  std::vector<std::byte> file = entry.file;
  file[8] = std::byte{200};
  write_file(entry.path, file);
  Log log;
  Cache cache(entry.directory(), log.sink());
  CHECK_FALSE(cache.find({kKey}).binary);
  CHECK(fs::exists(entry.path));
  CHECK(log.warnings().empty());
}

TEST_CASE("a good entry under another key's name is not loaded") {
  OneEntry entry;
  const CacheKey other = key_for("x86-64-v4");
  const std::string digest = other.digest();
  const fs::path shard = fs::path(entry.directory()) / digest.substr(0, 2);
  fs::create_directories(shard);
  fs::rename(entry.path, shard / (digest + entry.path.filename().string().substr(32)));
  Log log;
  Cache cache(entry.directory(), log.sink());
  CHECK_FALSE(cache.find({other}).binary);
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find("another key") != std::string::npos);
}

TEST_CASE("files and folders are this user's alone") {
  OneEntry entry;
  struct stat status{};
  REQUIRE(::stat(entry.path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0600);
  REQUIRE(::stat(entry.path.parent_path().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0700);
  REQUIRE(::stat(entry.directory().c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0700);
  CHECK(files_below(entry.folder.path()).size() == 1);  // no temporary file is left
}

TEST_CASE("a folder that others may write is refused") {
  OneEntry entry;
  for (const mode_t mode : {0770, 0702, 01777}) {
    REQUIRE(::chmod(entry.directory().c_str(), mode) == 0);
    check_memory_only(entry.directory(), "chmod go-w");
  }
}

TEST_CASE("a folder of another user is refused") {
  if (::geteuid() != 0) return;  // only root can make one
  OneEntry entry;
  give_to(entry.directory(), 12345);
  check_memory_only(entry.directory(), "belongs to user 12345");
}

TEST_CASE("a folder of root is read by others, who cannot write it") {
  if (::geteuid() != 0) return;
  OneEntry entry;
  for (const fs::path& path : {entry.folder.path(), fs::path(entry.directory()), entry.path.parent_path()})
    REQUIRE(::chmod(path.c_str(), 0755) == 0);
  REQUIRE(::chmod(entry.path.c_str(), 0644) == 0);
  const OrdinaryUser user;
  Log log;
  CountingCompiler compiler;
  Cache cache(entry.directory(), log.sink());
  CHECK(cache.get({kKey}, std::ref(compiler)).origin == Origin::disk);
  CHECK(cache.get({key_for("x86-64-v4")}, std::ref(compiler)).path.empty());
  CHECK(log.warnings().size() == 1);
}

TEST_CASE("a shard or entry that others may write is not used") {
  OneEntry entry;
  const auto check_ignored = [&] {
    Log log;
    Cache cache(entry.directory(), log.sink());
    CHECK_FALSE(cache.find({kKey}).binary);
    CHECK_FALSE(cache.find({kKey}).binary);
    CHECK(log.warnings().size() == 1);
  };
  SUBCASE("shard") { REQUIRE(::chmod(entry.path.parent_path().c_str(), 0777) == 0); }
  SUBCASE("entry") { REQUIRE(::chmod(entry.path.c_str(), 0666) == 0); }
  check_ignored();
  CHECK(fs::exists(entry.path));
}

TEST_CASE("symbolic links are not followed") {
  OneEntry entry;
  const ScratchFolder elsewhere;
  SUBCASE("folder") {
    fs::create_directory_symlink(entry.directory(), elsewhere / "link");
    check_memory_only(elsewhere / "link", "symbolic link");
    check_memory_only((elsewhere / "link") + "/", "symbolic link");
  }
  SUBCASE("shard") {
    const fs::path shard = entry.path.parent_path();
    fs::rename(shard, elsewhere / "shard");
    fs::create_directory_symlink(elsewhere / "shard", shard);
    Log log;
    Cache cache(entry.directory(), log.sink());
    CountingCompiler compiler;
    CHECK(cache.get({kKey}, std::ref(compiler)).path.empty());
    CHECK(files_below(elsewhere.path()).size() == 1);  // nothing was written through the link
  }
  SUBCASE("entry") {
    fs::rename(entry.path, elsewhere / "entry");
    fs::create_symlink(elsewhere / "entry", entry.path);
    Log log;
    Cache cache(entry.directory(), log.sink());
    CHECK_FALSE(cache.find({kKey}).binary);
    CHECK(log.warnings().size() == 1);
    // Publishing replaces the link, not what it leads to.
    CountingCompiler compiler;
    CHECK(cache.get({kKey}, std::ref(compiler)).path == entry.path);
    CHECK_FALSE(fs::is_symlink(entry.path));
    CHECK(read_file(elsewhere / "entry") == entry.file);
  }
}

TEST_CASE("a FIFO or folder in an entry's place does not block or crash") {
  OneEntry entry;
  fs::remove(entry.path);
  SUBCASE("FIFO") { REQUIRE(::mkfifo(entry.path.c_str(), 0600) == 0); }
  SUBCASE("folder") { fs::create_directory(entry.path); }
  Log log;
  Cache cache(entry.directory(), log.sink());
  CHECK_FALSE(cache.find({kKey}).binary);
  CountingCompiler compiler;
  CHECK(*cache.get({kKey}, std::ref(compiler)).binary == CountingCompiler::binary_for(kKey));
}

TEST_CASE("a file of any size in an entry's place is bounded") {
  OneEntry entry;
  fs::resize_file(entry.path, std::uintmax_t{1} << 40);  // sparse
  Log log;
  Cache cache(entry.directory(), log.sink());
  CHECK_FALSE(cache.find({kKey}).binary);
  CHECK(log.warnings().size() == 1);
}

TEST_CASE("a folder that cannot be created leaves the cache in memory") {
  const ScratchFolder folder;
  write_file(folder / "file", bytes_of("not a folder"));
  check_memory_only(folder / "file", "file");
  check_memory_only(folder / "file/below/it", "file/below/it");
}

TEST_CASE("a read-only folder is read, what is new stays in memory, one warning says so") {
  OneEntry entry;
  CountingCompiler compiler;
  for (const fs::path& path :
       {entry.folder.path(), fs::path(entry.directory()), entry.path.parent_path(), entry.path})
    give_to(path, OrdinaryUser::kNobody);
  fs::permissions(entry.path.parent_path(), fs::perms::owner_write, fs::perm_options::remove);
  fs::permissions(entry.directory(), fs::perms::owner_write, fs::perm_options::remove);
  {
    const OrdinaryUser user;
    Log log;
    Cache cache(entry.directory(), log.sink());
    CHECK(cache.get({kKey}, std::ref(compiler)).origin == Origin::disk);
    for (const char* target : {"x86-64-v4", "x86-64-v2"}) {
      CHECK(cache.get({key_for(target)}, std::ref(compiler)).path.empty());
      CHECK(cache.get({key_for(target)}, std::ref(compiler)).origin == Origin::memory);
    }
    CHECK(log.warnings().size() == 1);

    // A loader refuses the entry, which cannot be removed: it must not come back for ever.
    cache.reject(kKey, cache.find({kKey}));
    CHECK(cache.get({kKey}, std::ref(compiler)).origin == Origin::compiled);
    CHECK(fs::exists(entry.path));
  }
  fs::permissions(entry.directory(), fs::perms::owner_all);
  fs::permissions(entry.path.parent_path(), fs::perms::owner_all);
}

TEST_CASE("a full disk leaves kernels in memory, without a torn file") {
  const ScratchFolder folder;
  Log log;
  CountingCompiler compiler;
  Cache cache(folder / "cache", log.sink());
  rlimit old_limit{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{200, old_limit.rlim_max};  // writes stop in the middle of the entry
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  const CacheEntry first = cache.get({kKey}, std::ref(compiler));
  const CacheEntry second = cache.get({key_for("x86-64-v4")}, std::ref(compiler));
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &old_limit) == 0);
  ::signal(SIGXFSZ, old_handler);

  CHECK(*first.binary == CountingCompiler::binary_for(kKey));
  CHECK(first.path.empty());
  CHECK(second.path.empty());
  CHECK(log.warnings().size() == 1);
  CHECK(files_below(folder.path()).empty());
  // There is room again.
  CHECK_FALSE(cache.get({key_for("x86-64-v2")}, std::ref(compiler)).path.empty());
}

TEST_CASE("a folder removed while the cache is in use is made anew") {
  const ScratchFolder folder;
  Log log;
  CountingCompiler compiler;
  Cache cache(folder / "cache", log.sink());
  cache.get({kKey}, std::ref(compiler));
  fs::remove_all(folder / "cache");
  CHECK(fs::exists(cache.get({key_for("x86-64-v4")}, std::ref(compiler)).path));
  CHECK(log.warnings().empty());
}

TEST_CASE("many caches on one folder publish and read at once") {
  const ScratchFolder folder;
  Log log;
  CountingCompiler compiler;
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int round = 0; round < 10; ++round) {
        Cache cache(folder / "cache", log.sink());
        for (const char* target : {"x86-64-v2", "x86-64-v3", "x86-64-v4"})
          if (*cache.get({key_for(target)}, std::ref(compiler)).binary !=
              CountingCompiler::binary_for(key_for(target)))
            ++wrong;
      }
    });
  for (std::thread& thread : threads)
    thread.join();
  CHECK(wrong == 0);
  CHECK(log.warnings().empty());
  CHECK(compiler.compiles <= 12);
  CHECK(files_below(folder.path()).size() == 3);
}

TEST_CASE("where the default folder is") {
  const Environment own("ADAMAS_CACHE_DIR", "/somewhere/of/mine");
  const Environment xdg("XDG_CACHE_HOME", "/xdg");
  const Environment home("HOME", "/home/me");
  CHECK(Cache::default_directory() == "/somewhere/of/mine");
  const Environment no_own("ADAMAS_CACHE_DIR", std::nullopt);
  CHECK(Cache::default_directory() == "/xdg/adamas");
  const Environment relative("XDG_CACHE_HOME", "relative");
  CHECK(Cache::default_directory() == "/home/me/.cache/adamas");
  const Environment no_home("HOME", std::nullopt);
  CHECK(Cache::default_directory().empty());

  Log log;
  const Cache cache(std::nullopt, log.sink());
  CHECK(cache.directory().empty());
  REQUIRE(log.warnings().size() == 1);
  CHECK(log.warnings()[0].find("HOME is not set") != std::string::npos);
}
