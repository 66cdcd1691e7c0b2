// `adamas precompile` and `adamas cache`: what they make is what prepare finds, in packs too; products, filters,
// damage, and that equal input gives equal packs.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "runtime/compile/cpu_target.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/cache.hpp"

using adamas::tests::adamas_cli;
using adamas::tests::bytes_of;
using adamas::tests::Environment;
using adamas::tests::Outcome;
using adamas::tests::read_file;
using adamas::tests::ScratchFolder;
using adamas::tests::write_file;
namespace fs = std::filesystem;

namespace {

const std::string kSpec = "head_dim=16 budget=4 kv_type=f16";
constexpr adamas::Capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 16};

/// A cache folder of its own, without packs, for one test.
struct OwnCache {
  ScratchFolder folder;
  Environment directory{"ADAMAS_CACHE_DIR", folder / "cache"};
  Environment packs{"ADAMAS_PACKS", std::nullopt};
};

std::string portable_target() { return adamas::runtime::runnable_cpu_targets().back(); }

std::vector<std::byte> text(const std::string& content) { return bytes_of(content); }

/// The command in double quotes that an error's hint names, as arguments.
std::vector<std::string> command_in(const std::string& hint) {
  const std::size_t begin = hint.find("adamas ") + 7, end = hint.find("; then");
  std::vector<std::string> words{""};
  bool quoted = false;
  for (const char c : hint.substr(begin, end - begin)) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ' ' && !quoted) {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

}  // namespace

TEST_CASE("precompile: products of Specs for several targets, resumed from the cache, byte for byte the same") {
  const OwnCache own;
  const std::string list = own.folder / "model.specs", out = own.folder / "model.pack";
  write_file(list, text("# two kernel sets\nhead_dim=16 budget=4,8   # a product\n\nhead_dim=16 budget=8\n"));
  const std::vector<std::string> command{"precompile", "--specs",   list,     "--targets",
                                         portable_target(),         "--out",  out, "--json"};
  const Outcome first = adamas_cli(command);
  CAPTURE(first.err);
  REQUIRE(first.exit_code == 0);
  CHECK(first.object().at("kernel_sets") == 2);
  CHECK(first.object().at("entries") == 6);
  CHECK(first.object().at("compiles") == 6);
  CHECK(first.object().at("bytes") == fs::file_size(out));
  const auto bytes = read_file(out);

  const auto again = [&](int expected_compiles, const std::vector<std::string>& more = {}) {
    std::vector<std::string> words = command;
    words.insert(words.end(), more.begin(), more.end());
    CHECK(adamas_cli(words).object().at("compiles") == expected_compiles);
    CHECK(read_file(out) == bytes);
  };
  fs::remove(out);
  again(0);
  {
    // No folder at all: the pack itself is what can be gone on from.
    const Environment no_folder("ADAMAS_CACHE_DIR", "/proc/nowhere");
    again(0);
  }
  fs::remove(out);
  const auto files = adamas::tests::files_below(own.folder / "cache");
  for (std::size_t i = 0; i < 2; ++i)
    fs::remove(files[i]);
  again(2);
  {
    // From nothing, one after the other, in another folder.
    fs::remove(out);
    const Environment elsewhere("ADAMAS_CACHE_DIR", own.folder / "another");
    again(6, {"--jobs", "1"});
  }
}

TEST_CASE("the command that a denied prepare names provides what it wants") {
  const OwnCache own;
  const std::string out = own.folder / "adamas.pack";
  for (const std::string tuning : {"", "chunk=16"}) {
    CAPTURE(tuning);
    std::string hint;
    {
      const adamas::Context denied(
          {.device = "cpu", .cache_dir = "", .packs = "", .compile = ADAMAS_COMPILE_DENY});
      try {
        denied.prepare(kSpec, kCapacity, tuning);
        FAIL("must be denied");
      } catch (const adamas::Error& error) {
        hint = error.hint();
      }
    }
    std::vector<std::string> command = command_in(hint);
    REQUIRE(command.front() == "precompile");
    REQUIRE(command.back() == "adamas.pack");
    command.back() = out;
    const Outcome made = adamas_cli(command);
    CAPTURE(made.err);
    REQUIRE(made.exit_code == 0);
    const adamas::Context denied(
        {.device = "cpu", .cache_dir = "", .packs = out.c_str(), .compile = ADAMAS_COMPILE_DENY});
    CHECK(denied.prepare(kSpec, kCapacity, tuning).info().compiles == 0);
  }
}

TEST_CASE("precompile: a table of Tunings is applied, and travels in the pack") {
  const OwnCache own;
  const std::string table = own.folder / "tunings", out = own.folder / "model.pack";
  write_file(table, text("# first fit\nsm_80 -> chunk=8\n* budget=8 -> chunk=16\n" + portable_target() +
                         " head_dim=16 -> chunk=24 scan_tile=128\n"));
  const Outcome made = adamas_cli({"precompile", "--spec", "head_dim=16 budget=4,8", "--targets", portable_target(),
                                   "--tuning", table, "--out", out});
  CAPTURE(made.err);
  REQUIRE(made.exit_code == 0);
  CHECK(made.out.find("2 kernel sets in 6 entries") != std::string::npos);
  CHECK(made.err.find("6 of 6 units") != std::string::npos);
  const adamas::Context denied(
      {.device = "cpu", .cache_dir = "", .packs = out.c_str(), .compile = ADAMAS_COMPILE_DENY});
  const std::string four = denied.prepare("head_dim=16 budget=4", kCapacity).info().tuning;
  CHECK(four.find("scan_tile=128 chunk=24") != std::string::npos);
  const std::string eight = denied.prepare("head_dim=16 budget=8", kCapacity).info().tuning;
  CHECK(eight.find(" chunk=16") != std::string::npos);
}

TEST_CASE("precompile: what is wrong is said with its line before anything is compiled") {
  const OwnCache own;
  const std::string list = own.folder / "list", table = own.folder / "table", out = own.folder / "out.pack";
  const struct {
    std::string specs, tunings, in_message;
  } cases[] = {
      {"head_dim=16\nbuckets=3\n", "", ":2: buckets=3"},
      {"head_dim=16 group=3..1\n", "", ":1: group=3..1: must be a range"},
      {"head_dim=16 group=1..x\n", "", "must be a range"},
      {"head_dim=16 budget=1..99999999999\n", "", "must be a range"},
      {"head_dim=16..512 budget=1..4096 group=1..32\n", "", "stands for more than"},
      {"# nothing\n", "", "must name at least one Spec"},
      {"head_dim=16,\n head_dim\n", "", ":2: "},
      {"head_dim=16 kv_type=q8_0\n", "", ":1: head_dim=16: must be a multiple of 32"},
      {"head_dim=16\n", "sm_80 chunk=8\n", ":1=sm_80 chunk=8"},
      {"head_dim=16\n", "\n* -> chunk=7\n", ":2: chunk=7"},
      {"head_dim=16\n", "sm_12345x -> chunk=8\n", ":1: target"},
  };
  for (const auto& [specs, tunings, in_message] : cases) {
    CAPTURE(specs);
    CAPTURE(tunings);
    write_file(list, text(specs));
    write_file(table, text(tunings));
    std::vector<std::string> command{"precompile", "--specs", list, "--targets", portable_target(), "--out", out};
    if (!tunings.empty()) command.insert(command.end(), {"--tuning", table});
    const Outcome outcome = adamas_cli(command);
    CAPTURE(outcome.err);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err.find(in_message) != std::string::npos);
    CHECK_FALSE(fs::exists(out));
  }
  CHECK_FALSE(fs::exists(own.folder / "cache"));
  CHECK(adamas_cli({"precompile", "--spec", kSpec}).exit_code == 2);  // --out is missing
  CHECK(adamas_cli({"precompile", "--specs", own.folder / "nowhere", "--out", out}).exit_code == 1);
  const Outcome refused =
      adamas_cli({"precompile", "--spec", "head_dim=32 kv_type=q8_0", "--targets", "sm_80", "--out", out});
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("is not generated") != std::string::npos);
}

TEST_CASE("cache: pack, ls, verify, prune and stats of one folder") {
  const OwnCache own;
  const std::string out = own.folder / "folder.pack", pack_of_list = own.folder / "list.pack";
  REQUIRE(adamas_cli({"compile", "--spec", kSpec, "--target", portable_target()}).exit_code == 0);
  REQUIRE(adamas_cli({"compile", "--spec", kSpec, "--target", "x86-64-v3", "--unit", "encode"}).exit_code == 0);

  const Outcome all = adamas_cli({"cache", "ls", "--json"});
  REQUIRE(all.lines().size() == 4);
  CHECK(adamas_cli({"cache", "ls", "--json", "--target", "x86-64-v3"}).lines().size() == 1);
  CHECK(adamas_cli({"cache", "ls", "--json", "--unit", "select"}).lines().size() == 1);
  CHECK(adamas_cli({"cache", "ls", "--json", "--spec", "budget=4 head_dim=16"}).lines().size() == 4);
  CHECK(adamas_cli({"cache", "ls", "--json", "--spec", "budget=40"}).lines().empty());
  const auto by_size = adamas_cli({"cache", "ls", "--json", "--sort", "size", "--reverse"}).lines();
  CHECK(std::ranges::is_sorted(by_size, std::greater<>{}, [](const auto& line) { return line.at("bytes").template get<int>(); }));
  CHECK(adamas_cli({"cache", "ls", "--sort", "colour"}).exit_code == 2);
  const Outcome table = adamas_cli({"cache", "ls"});
  CHECK(table.out.find("last used") != std::string::npos);
  CHECK(table.out.find("adamas-cc") != std::string::npos);

  // A pack of the CPU's entries is what precompile would have made.
  REQUIRE(adamas_cli({"cache", "pack", "--target", portable_target(), "--out", out}).exit_code == 0);
  REQUIRE(adamas_cli({"precompile", "--spec", kSpec, "--targets", portable_target(), "--out", pack_of_list}).exit_code ==
          0);
  CHECK(read_file(out) == read_file(pack_of_list));
  CHECK(adamas_cli({"cache", "ls", "--pack", out, "--json"}).lines().size() == 3);
  CHECK(adamas_cli({"cache", "pack", "--target", "sm_120", "--out", out}).exit_code == 1);
  CHECK(adamas_cli({"cache", "verify", out}).exit_code == 0);

  {
    const Environment packs("ADAMAS_PACKS", out);
    const auto stats = adamas_cli({"cache", "stats", "--json"}).object();
    CHECK(stats.at("entries") == 4);
    CHECK(stats.at("max_bytes") == 1 << 30);
    CHECK(stats.at("totals").at("compiles") == 4);
    CHECK(stats.at("packs").at(0).at("entries") == 3);
    CHECK(adamas_cli({"cache", "stats"}).out.find("4 compiled") != std::string::npos);
    CHECK(adamas_cli({"cache", "verify", "--json"}).lines().size() == 2);
  }

  // Damage, in the folder and in packs.
  const std::string path = all.lines()[0].at("path");
  auto file = read_file(path);
  file.back() ^= std::byte{1};
  write_file(path, file);
  const Outcome folder = adamas_cli({"cache", "verify", "--json"});
  CHECK(folder.exit_code == 1);
  CHECK(folder.object().at("good") == 3);
  CHECK(folder.object().at("damaged").at(0).at("path") == path);
  CHECK(adamas_cli({"cache", "pack", "--out", out, "--json"}).object().at("damaged") == 1);
  auto pack = read_file(pack_of_list);
  pack.back() ^= std::byte{1};
  write_file(pack_of_list, pack);
  const Outcome verdict = adamas_cli({"cache", "verify", pack_of_list});
  CHECK(verdict.exit_code == 1);
  CHECK(verdict.out.find("is damaged") != std::string::npos);
  CHECK(adamas_cli({"cache", "ls", "--pack", pack_of_list}).exit_code == 1);
  CHECK(adamas_cli({"cache", "verify", own.folder / "nowhere.pack"}).exit_code == 1);

  // By age and by size.
  const struct timespec times[2] = {{std::time(nullptr) - 10 * 86'400, 0}, {0, UTIME_OMIT}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
  CHECK(adamas_cli({"cache", "prune", "--json"}).object().at("removed") == 0);
  CHECK(adamas_cli({"cache", "prune", "--unused-for", "2w", "--json"}).object().at("removed") == 0);
  CHECK(adamas_cli({"cache", "prune", "--unused-for", "9d", "--json"}).object().at("removed") == 1);
  CHECK_FALSE(fs::exists(path));
  CHECK(adamas_cli({"cache", "prune", "--size", "1K", "--json"}).object().at("removed") == 3);
  CHECK(adamas_cli({"cache", "prune", "--size", "much"}).exit_code == 1);
  CHECK(adamas_cli({"cache", "prune", "--unused-for", "long"}).exit_code == 1);
}

TEST_CASE("doctor tells packs, policy and counters") {
  const OwnCache own;
  const std::string out = own.folder / "model.pack";
  REQUIRE(adamas_cli({"precompile", "--spec", kSpec, "--targets", portable_target(), "--out", out}).exit_code == 0);
  const Environment packs("ADAMAS_PACKS", out + ":" + (own.folder / "nowhere.pack"));
  const Environment policy("ADAMAS_COMPILE", "deny");
  const auto checks = adamas_cli({"doctor", "--json"}).object().at("checks");
  std::vector<std::string> states;
  for (const auto& check : checks) {
    if (check.at("what") == "pack") states.push_back(check.at("state"));
    if (check.at("what") == "compile policy") CHECK(check.at("policy") == "deny");
    if (check.at("what") == "cache counters") CHECK(check.at("compiles") == 3);
  }
  CHECK(states == std::vector<std::string>{"ok", "problem"});
}

TEST_CASE("times as people write them") {
  using adamas::tools::parse_seconds;
  CHECK(parse_seconds("90") == 90);
  CHECK(parse_seconds("15m") == 900);
  CHECK(parse_seconds("12h") == 43'200);
  CHECK(parse_seconds("30d") == 2'592'000);
  CHECK(parse_seconds("4w") == 2'419'200);
  for (const char* wrong : {"", "d", "-1", "1y", "1dd", "99999999999999999999"})
    CHECK_FALSE(parse_seconds(wrong));
}
