// Tunings of a tuning file in kernels and plans: which are compiled, which a plan takes, and that no answer
// changes but in its last bits.
#include <doctest/doctest.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/cli.hpp"

namespace adamas::tests {
namespace {

constexpr Capacity kCapacity{.max_batch = 8, .kv_heads = 2, .max_tokens = 4096};
const std::string kSpec = "head_dim=64 budget=32";

runtime::TunedEntry entry(const std::string& target, int batch, std::int64_t tokens,
                          const std::string& tuning) {
  const auto spec = codegen::Spec::parse(kSpec);
  return {.spec = spec.text(),
          .target = target,
          .shape = {.batch = batch, .kv_heads = 2, .tokens = tokens},
          .tuning = codegen::Tuning::parse(tuning, spec, target).text(),
          .us = 1,
          .default_us = 2};
}

/// Of the CPU: short rows one Tuning, long ones another, batches beyond the capacities a third.
std::string three_tunings(const ScratchFolder& folder) {
  const std::string target = Context("cpu").info().target;
  runtime::TuningFile file;
  file.put(entry(target, 1, 512, "scan_tile=512"));
  file.put(entry(target, 1, 4096, "scan_tile=4096"));
  file.put(entry(target, 8, 4096, "scan_tile=4096"));
  file.put(entry(target, 64, 4096, "scan_tile=1024"));
  const std::string path = folder / "tuning.json";
  file.write(path);
  return path;
}

Context context_with(const ScratchFolder& folder, const char* tuning, const char* packs = "") {
  const std::string cache = folder / "cache";
  return Context(ContextOptions{
      .device = "cpu", .cache_dir = cache.c_str(), .threads = 1, .packs = packs, .tuning = tuning});
}

std::string tuning_of(const Plan& plan) { return plan.info().tuning; }

TEST_CASE("cpu: a kernel holds the Tunings for its capacities, and a plan takes the nearest") {
  const ScratchFolder folder;
  const std::string path = three_tunings(folder);
  const Context context = context_with(folder, path.c_str());
  const Kernel kernel = context.prepare(kSpec, kCapacity);
  CHECK(kernel.info().compiles == 5);  // encode once; select and attend for each of two Tunings
  CHECK(contains(kernel.info().tuning, "scan_tile=4096"));
  CHECK(contains(tuning_of(kernel.plan({.batch = 1, .expected_tokens = 300})), "scan_tile=512"));
  CHECK(contains(tuning_of(kernel.plan({.batch = 1})), "scan_tile=4096"));
  CHECK(contains(tuning_of(kernel.plan({.batch = 8, .expected_tokens = 3000})), "scan_tile=4096"));

  const Kernel own = context.prepare(kSpec, kCapacity, "scan_tile=1024");
  CHECK(contains(tuning_of(own.plan({.batch = 1, .expected_tokens = 300})), "scan_tile=1024"));
  const Kernel other = context.prepare("head_dim=64 budget=16", kCapacity);
  CHECK(contains(tuning_of(other.plan({.batch = 1})), "scan_tile=2048"));  // the default
}

TEST_CASE("cpu: only a larger shape's Tuning is better than none") {
  const ScratchFolder folder;
  const std::string path = three_tunings(folder);
  const Context context = context_with(folder, path.c_str());
  const Kernel kernel = context.prepare(kSpec, {.max_batch = 1, .kv_heads = 2, .max_tokens = 256});
  CHECK(kernel.info().compiles == 3);
  CHECK(contains(kernel.info().tuning, "scan_tile=512"));
}

TEST_CASE("cpu: expected tokens are within the capacity") {
  const ScratchFolder folder;
  const Context context = context_with(folder, "");
  const Kernel kernel = context.prepare(kSpec, kCapacity);
  for (const std::int64_t tokens : {std::int64_t{-1}, std::int64_t{4097}}) {
    const Refusal refusal = refusal_of([&] { kernel.plan({.batch = 1, .expected_tokens = tokens}); });
    CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
    CHECK(contains(refusal.message, "expected_tokens"));
  }
}

TEST_CASE("cpu: the cache folder's tuning.json is found, and a damaged file is a warning") {
  const ScratchFolder folder;
  static std::vector<std::string> warnings;
  warnings.clear();
  const std::string cache = folder / "cache";
  ContextOptions options{.device = "cpu", .cache_dir = cache.c_str(), .threads = 1, .packs = ""};
  options.log = [](void*, adamas_log_level, const char* message) { warnings.emplace_back(message); };
  {
    const Context context(options);
    context.prepare(kSpec, kCapacity);  // makes the folder
  }
  const std::string path = three_tunings(folder);
  std::ifstream source(path);
  std::ofstream(cache + "/tuning.json") << source.rdbuf();
  {
    const Environment unset("ADAMAS_TUNING", std::nullopt);
    const Context context(options);
    CHECK(contains(context.prepare(kSpec, kCapacity).info().tuning, "scan_tile=4096"));
  }
  CHECK(warnings.empty());
  std::ofstream(path) << "{\"adamas_tuning\": 99, \"entries\": []}";
  options.tuning = path.c_str();
  const Context context(options);
  CHECK(contains(context.prepare(kSpec, kCapacity).info().tuning, "scan_tile=2048"));
  REQUIRE(warnings.size() == 1);
  CHECK(contains(warnings.front(), "has version 99"));
}

TEST_CASE("cpu: a pack carries the Tunings that it was made with") {
  const ScratchFolder folder;
  const std::string path = three_tunings(folder), pack = folder / "tuned.pack";
  const std::string cache = folder / "made";
  const Environment own_cache("ADAMAS_CACHE_DIR", cache);
  REQUIRE(adamas_cli({"precompile", "--spec", kSpec, "--targets", "host", "--tuning", path, "--out", pack})
              .exit_code == 0);
  const Context context = context_with(folder, "", pack.c_str());
  const Kernel kernel = context.prepare(kSpec, kCapacity);
  CHECK(kernel.info().compiles == 0);
  CHECK(contains(tuning_of(kernel.plan({.batch = 1, .expected_tokens = 300})), "scan_tile=512"));
  CHECK(contains(tuning_of(kernel.plan({.batch = 8})), "scan_tile=4096"));
}

}  // namespace
}  // namespace adamas::tests
