// The command line in process: exit codes, help, JSON, and that what `compile` stores is what prepare looks
// for.
#include "tools/cli.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "runtime/compile/cpu_target.hpp"
#include "runtime/dispatch/kernel.hpp"
#include "tests/cache/support.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/kernel_request.hpp"
#include "tools/text.hpp"

namespace fs = std::filesystem;
namespace tools = adamas::tools;
using adamas::tests::adamas_cli;
using adamas::tests::Captured;
using adamas::tests::Outcome;
using adamas::tests::ScratchFolder;
using nlohmann::json;

namespace {

const std::vector<std::string> kSubcommands{"demo",  "eval",       "calibrate", "doctor", "emit", "compile",
                                            "bench", "precompile", "specs",     "cache"};

/// A small kernel set: quick to compile.
const std::string kSpec = "head_dim=64 budget=16 kv_type=f16";

/// Sets an environment variable for a scope.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_) {
      setenv(name_, before_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

/// A cache of its own for one test.
struct TemporaryCache {
  ScratchFolder folder;
  Variable variable{"ADAMAS_CACHE_DIR", folder / "cache"};
};

bool this_cpu_runs(const std::string& target) {
  const auto targets = adamas::runtime::runnable_cpu_targets();
  return std::find(targets.begin(), targets.end(), target) != targets.end();
}

}  // namespace

TEST_CASE("every subcommand has help with an example") {
  const Outcome all = adamas_cli({"--help"});
  CHECK(all.exit_code == 0);
  for (const std::string& name : kSubcommands) {
    CAPTURE(name);
    CHECK(all.out.find("\n  " + name) != std::string::npos);
    const Outcome help = adamas_cli({name, "--help"});
    CHECK(help.exit_code == 0);
    CHECK(help.err.empty());
    CHECK(help.out.find("Example:\n  adamas " + name) != std::string::npos);
  }
  for (const std::string name : {"stats", "ls", "verify", "prune", "clear", "pack"}) {
    CAPTURE(name);
    CHECK(adamas_cli({"cache", name, "--help"}).out.find("Example:\n  adamas cache " + name) !=
          std::string::npos);
  }
}

TEST_CASE("wrong usage ends with 2 and says where to look") {
  const std::vector<std::vector<std::string>> wrong{
      {},        {"frobnicate"},   {"doctor", "--frobnicate"}, {"emit", "--unit", "scan"}, {"emit", "--spec"},
      {"cache"}, {"cache", "burn"}};
  for (const auto& words : wrong) {
    CAPTURE(words);
    const Outcome outcome = adamas_cli(words);
    CHECK(outcome.exit_code == 2);
    CHECK(outcome.out.empty());
    CHECK(outcome.err.find("--help") != std::string::npos);
  }
  const json error = adamas_cli({"cache", "burn", "--json"}).object().at("error");
  CHECK(error.at("status") == "usage");
  CHECK(error.at("hint") == "see adamas cache --help");
}

TEST_CASE("a bad Spec ends with 1 and names the field, for people and machines") {
  for (const std::string command : {"emit", "compile"}) {
    CAPTURE(command);
    const Outcome outcome = adamas_cli({command, "--spec", "buckets=3", "--json"});
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.err.find("buckets=3") != std::string::npos);
    const json error = outcome.object().at("error");
    CHECK(error.at("status") == "invalid_spec");
    CHECK(error.at("field") == "buckets");
    CHECK(error.at("value") == "3");
    CHECK(!error.at("rule").get<std::string>().empty());
    CHECK(error.at("hint").get<std::string>().find("nearest") != std::string::npos);
  }
  CHECK(adamas_cli({"emit", "--target", "sm_9x"}).err.find("target=sm_9x") != std::string::npos);
  CHECK(adamas_cli({"emit", "--tuning", "chunk=none"}).err.find("chunk=none") != std::string::npos);
  // One bad target of a list: nothing is compiled for the others.
  TemporaryCache cache;
  CHECK(adamas_cli({"compile", "--target", "x86-64-v2,sm_9x", "--spec", kSpec}).exit_code == 1);
  CHECK(adamas_cli({"cache", "stats", "--json"}).object().at("entries") == 0);
}

TEST_CASE("emitted source is the same each time and includes nothing") {
  for (const std::string target : {"sm_90a", "x86-64-v3", "host"}) {
    CAPTURE(target);
    const Outcome first = adamas_cli({"emit", "--spec", kSpec, "--target", target});
    CHECK(first.exit_code == 0);
    CHECK(first.err.empty());
    CHECK(first.out.find("#include") == std::string::npos);
    for (const char* entry : {"adamas_encode", "adamas_scan", "adamas_attend"}) {
      CHECK(first.out.find(entry) != std::string::npos);
    }
    CHECK(adamas_cli({"emit", "--spec", kSpec, "--target", target}).out == first.out);
  }
}

TEST_CASE("emit writes files, and its JSON holds the same text") {
  const ScratchFolder folder;
  const std::vector<std::string> words{"emit",  "--spec", kSpec,          "--target",
                                       "sm_80", "--unit", "select,encode"};
  auto with = [&words](std::vector<std::string> more) {
    more.insert(more.begin(), words.begin(), words.end());
    return adamas_cli(more);
  };
  CHECK(with({"--out", folder / "source"}).exit_code == 0);
  const auto files = adamas::tests::files_below(folder.path());
  CHECK(files.size() == 2);
  const std::vector<json> units = with({"--json"}).lines();
  REQUIRE(units.size() == 2);
  for (const json& unit : units) {
    const fs::path path = folder.path() / "source" / (unit.at("unit").get<std::string>() + ".cu");
    CAPTURE(path.string());
    CHECK(unit.at("source").get<std::string>().size() == unit.at("bytes"));
    CHECK(adamas::tests::read_file(path) == adamas::tests::bytes_of(unit.at("source").get<std::string>()));
  }
  adamas::tests::write_file(folder.path() / "file", {});
  const Outcome refused = with({"--out", folder / "file", "--json"});
  CHECK(refused.exit_code == 1);
  CHECK(refused.object().at("error").at("status") == "io_error");
}

TEST_CASE("compiling twice compiles once, and the cache's subcommands see it") {
  TemporaryCache cache;
  const std::vector<std::string> words{"compile", "--spec", kSpec, "--target", "x86-64-v2,host", "--json"};
  const std::vector<json> first = adamas_cli(words).lines();
  REQUIRE(first.size() == 2);
  std::uint64_t units = 0;
  for (const json& target : first) {
    CHECK(target.at("compiles") == target.at("units").size());
    units += target.at("units").size();
    for (const json& unit : target.at("units")) {
      CHECK(unit.at("from") == "compiler");
      CHECK(unit.at("code_bytes") > 0);
      CHECK(unit.at("code_bytes") < unit.at("bytes"));
      CHECK(fs::exists(unit.at("path").get<std::string>()));
    }
  }
  CHECK(first[1].at("target") == adamas::runtime::host_cpu_target());

  const ScratchFolder folder;
  std::vector<std::string> with_out = words;
  with_out.insert(with_out.end(), {"--out", folder / "binaries"});
  const std::vector<json> second = adamas_cli(with_out).lines();
  REQUIRE(second.size() == 2);
  for (const json& target : second) {
    CHECK(target.at("compiles") == 0);
    for (const json& unit : target.at("units")) {
      CHECK(unit.at("from") == "cache");
      CHECK(fs::file_size(unit.at("out").get<std::string>()) == unit.at("bytes"));
    }
  }

  const json stats = adamas_cli({"cache", "stats", "--json"}).object();
  CHECK(stats.at("entries") == units);
  CHECK(stats.at("bytes") > 0);
  const std::vector<json> entries = adamas_cli({"cache", "ls", "--json"}).lines();
  CHECK(entries.size() == units);
  CHECK(adamas_cli({"cache", "ls"}).out.find("head_dim=64 budget=16") != std::string::npos);
  CHECK(adamas_cli({"cache", "clear", "--json"}).object().at("removed") == units);
  CHECK(adamas_cli({"cache", "stats", "--json"}).object().at("entries") == 0);
}

TEST_CASE("a kernel compiled for x86-64-v3 is found by prepare where there is no compiler") {
  if (!this_cpu_runs("x86-64-v3")) {
    MESSAGE("skipped: this CPU does not run x86-64-v3");
    return;
  }
  TemporaryCache cache;
  CHECK(adamas_cli({"compile", "--spec", kSpec, "--target", "x86-64-v3"}).exit_code == 0);

  const Variable no_compiler("ADAMAS_CC", cache.folder / "nowhere");
  const auto context =
      std::make_shared<adamas::runtime::Context>(adamas::runtime::ContextConfig{
          .device = "cpu", .cache = {.directory = cache.folder / "cache"}, .threads = 1});
  const adamas::runtime::Capacity capacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 256, .max_slots = 0};
  const auto kernel = adamas::runtime::Kernel::prepare(context, kSpec, "", capacity);
  CHECK(kernel->report().target == "x86-64-v3");
  CHECK(kernel->report().compiles == 0);
  // Another Spec is in no cache, and the answer names what is missing.
  try {
    adamas::runtime::Kernel::prepare(context, "head_dim=64 budget=17", "", capacity);
    FAIL("prepared without a compiler");
  } catch (const adamas::codegen::Error& error) {
    CHECK(error.code() == ADAMAS_UNAVAILABLE);
    CHECK(error.value().find("budget=17") != std::string::npos);
  }
}

TEST_CASE("the doctor says whether kernels can be prepared, and why not") {
  TemporaryCache cache;
  const Outcome healthy = adamas_cli({"doctor", "--json"});
  CHECK(healthy.exit_code == 0);
  const json report = healthy.object();
  CHECK(report.at("ready") == true);
  const auto check_named = [](const json& from, const std::string& name) {
    for (const json& check : from.at("checks")) {
      if (check.at("what") == name) return check;
    }
    FAIL("no check named " << name);
    return json();
  };
  CHECK(check_named(report, "CPU compiler").at("state") == "ok");
  CHECK(check_named(report, "cpu").at("targets").at(0) == adamas::runtime::host_cpu_target());
  const json folder = check_named(report, "cache folder");
  CHECK(folder.at("state") == "ok");
  CHECK(folder.at("path") == cache.folder / "cache");
  CHECK(folder.at("entries") == 0);
  CHECK(folder.at("mode") == "0700");
  for (const json& check : report.at("checks"))
    CHECK(!check.at("detail").get<std::string>().empty());
  CHECK(adamas_cli({"doctor"}).out.find("kernels can be prepared on: ") != std::string::npos);

  const Variable no_compiler("ADAMAS_CC", cache.folder / "nowhere");
  const Outcome ill = adamas_cli({"doctor", "--json"});
  const json compiler = check_named(ill.object(), "CPU compiler");
  CHECK(compiler.at("state") == "problem");
  CHECK(compiler.at("detail").get<std::string>().find(cache.folder / "nowhere") != std::string::npos);
  // A GPU would still serve.
  const json ill_report = ill.object();
  const bool any = std::any_of(ill_report.at("devices").begin(), ill_report.at("devices").end(),
                               [](const json& device) { return device.at("ready") == true; });
  CHECK(ill.exit_code == (any ? 0 : 1));
  CHECK(ill_report.at("ready") == any);
}

TEST_CASE(
    "a cache folder that cannot be used is an error of the cache's subcommands and a finding of the "
    "doctor's") {
  const ScratchFolder folder;
  adamas::tests::write_file(folder.path() / "file", {});
  const Variable variable("ADAMAS_CACHE_DIR", folder / "file");
  for (const std::string name : {"stats", "ls", "verify", "prune", "clear"}) {
    CAPTURE(name);
    const Outcome outcome = adamas_cli({"cache", name, "--json"});
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.object().at("error").at("field") == "cache folder");
  }
  const json report = adamas_cli({"doctor", "--json"}).object();
  bool told = false;
  for (const json& check : report.at("checks")) {
    if (check.at("what") == "cache folder") told = check.at("state") == "problem";
  }
  CHECK(told);
}

TEST_CASE("a list of targets keeps the features of a CPU's full name together") {
  using Targets = std::vector<std::string>;
  CHECK(tools::split_targets("host") == Targets{"host"});
  CHECK(tools::split_targets("sm_90a, x86-64-v3,host") == Targets{"sm_90a", "x86-64-v3", "host"});
  CHECK(tools::split_targets("x86-64:znver3:+avx2,+fma,sm_80") ==
        Targets{"x86-64:znver3:+avx2,+fma", "sm_80"});
  const std::string host = adamas::runtime::host_cpu_target();
  CHECK(tools::split_targets("sm_80," + host + ",sm_86") == Targets{"sm_80", host, "sm_86"});
}

TEST_CASE("texts for people") {
  CHECK(tools::human_bytes(0) == "0 B");
  CHECK(tools::human_bytes(1023) == "1023 B");
  CHECK(tools::human_bytes(42496) == "41.5 KiB");
  CHECK(tools::human_bytes(std::uint64_t{3} << 30) == "3.0 GiB");
  CHECK(tools::human_milliseconds(0.25) == "0.25 ms");
  CHECK(tools::human_milliseconds(312.4) == "312 ms");
  CHECK(tools::human_milliseconds(2100) == "2.10 s");

  const std::string typed = "head_dim=96 hadamard=48 group=5 soft_cap=on";
  const std::string canonical = adamas::codegen::Spec::parse(typed).text();
  CHECK(adamas::codegen::Spec::parse(tools::short_spec(canonical)).text() == canonical);
  CHECK(tools::short_spec(canonical) == typed);
  CHECK(tools::short_spec(adamas::codegen::Spec{}.text()) == "(defaults)");
  CHECK(tools::short_spec("of=another version") == "of=another version");
}

TEST_CASE("tables align text to the left and numbers to the right") {
  tools::Table table({"name", "size", "note"});
  table.add({"a", "1.5 KiB", "x"});
  table.add({"long", "—", "yy"});
  Captured out(stdout);
  table.print();
  CHECK(out.text() ==
        "name     size  note\n"
        "a     1.5 KiB  x\n"
        "long        —  yy\n");
}
