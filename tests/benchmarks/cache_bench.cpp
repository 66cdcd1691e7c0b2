// adamas_cache_bench: the times that operators feel. A kernel set found in the folder and in a pack, `cache
// stats` over many entries, precompile on one thread and on all, a CPU's first and later starts. Prints;
// asserts nothing.
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/disk.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/compile/subprocess.hpp"
#include "runtime/device/cpu_count.hpp"
#include "runtime/dispatch/units.hpp"
#include "tests/cache/support.hpp"
#include "tools/text.hpp"

using namespace adamas;
using tests::ScratchFolder;
using Clock = std::chrono::steady_clock;

namespace {

double milliseconds(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string median_of(std::vector<double> times) {
  std::ranges::sort(times);
  return fmt::format("{:7.3f} ms (p10 {:.3f}, p90 {:.3f}, {} times)", times[times.size() / 2],
                     times[times.size() / 10], times[times.size() * 9 / 10], times.size());
}

void print(const std::string& what, const std::string& result) {
  std::printf("%-58s %s\n", what.c_str(), result.c_str());
  std::fflush(stdout);
}

/// A kernel set of one target: compiled once, then found by caches that have never seen it.
void bench_lookup(const std::string& target) {
  constexpr int kTimes = 200;
  const auto spec = codegen::Spec::parse("head_dim=128 group=4 kv_type=bf16");
  const auto tuning = codegen::Tuning::parse("", spec, target);
  const auto compiler = runtime::compiler_for(target);
  if (!compiler->unavailable().empty()) {
    print(target, "no compiler here");
    return;
  }
  const ScratchFolder folder;
  const std::string directory = folder / "cache", pack_path = folder / "kernels.pack";
  const runtime::UnitKeys keys = runtime::unit_keys(spec, tuning, target, *compiler);
  runtime::PackWriter writer;
  {
    runtime::Cache cache(directory, {});
    for (const runtime::CacheKey& key : keys) {
      const auto entry =
          cache.get({key}, [&](const runtime::CacheKey& k) { return runtime::compile_unit(*compiler, k); });
      writer.add({.digest = key.digest(),
                  .unit = key.unit,
                  .spec = key.spec,
                  .tuning = key.tuning,
                  .target = key.target,
                  .options = key.options,
                  .compiler = entry.compiler},
                 key.text(), *entry.binary);
    }
  }
  writer.write(pack_path);

  std::vector<double> emitting, in_folder, in_pack, opening;
  for (int i = 0; i < kTimes; ++i) {
    emitting.push_back(milliseconds([&] { runtime::unit_keys(spec, tuning, target, *compiler); }));
    const auto find_all = [&](runtime::Cache& cache) {
      return milliseconds([&] {
        for (const runtime::CacheKey& key : keys)
          if (!cache.find({key}).binary) std::abort();
      });
    };
    runtime::Cache with_folder(runtime::CacheOptions{.directory = directory, .packs = ""});
    in_folder.push_back(find_all(with_folder));
    std::unique_ptr<runtime::Cache> with_pack;
    opening.push_back(milliseconds([&] {
      with_pack =
          std::make_unique<runtime::Cache>(runtime::CacheOptions{.directory = "", .packs = pack_path});
    }));
    in_pack.push_back(find_all(*with_pack));
  }
  const std::string what = fmt::format("{}, {} units: ", tools::short_target(target), keys.size());
  print(what + "found in the folder", median_of(in_folder));
  print(what + "found in a pack", median_of(in_pack));
  print(what + "source text and keys, before", median_of(emitting));
  print("a cache on a pack opened", median_of(opening));
}

/// prepare on this CPU, with nothing in the cache and with everything there.
void bench_start() {
  constexpr int kCold = 15, kWarm = 200;
  const adamas_capacity capacity{.max_batch = 1, .kv_heads = 8, .max_tokens = 32768};
  for (const std::string spec : {"", "group=4 budget=256 page_size=64"}) {
    const ScratchFolder folder;
    const auto prepare = [&](const std::string& directory) {
      const Context context(ContextOptions{.device = "cpu", .cache_dir = directory.c_str(), .packs = ""});
      return context.prepare(spec, capacity).info();
    };
    std::vector<double> cold, warm;
    for (int i = 0; i < kCold; ++i)
      cold.push_back(prepare(folder / std::to_string(i)).compile_ms);
    for (int i = 0; i < kWarm; ++i)
      warm.push_back(prepare(folder / "0").load_ms);
    print(fmt::format("CPU \"{}\", compiled", spec), median_of(cold));
    print(fmt::format("CPU \"{}\", from the folder", spec), median_of(warm));
  }
}

void bench_stats(int entries) {
  const ScratchFolder folder;
  const std::string directory = folder / "cache";
  {
    // One real entry, then copies under names of their own: what counts here are names and sizes.
    tests::CountingCompiler compiler;
    runtime::Cache cache(directory, {});
    const std::filesystem::path first = cache.get({tests::key_for("x86-64-v3")}, std::ref(compiler)).path;
    const auto bytes = tests::read_file(first);
    for (int i = 1; i < entries; ++i) {
      const std::string digest = tests::key_for("x86-64-v3", std::to_string(i)).digest();
      const auto shard = std::filesystem::path(directory) / digest.substr(0, 2);
      std::filesystem::create_directory(shard);
      std::filesystem::permissions(shard, std::filesystem::perms::owner_all);
      tests::write_file(shard / (digest + first.filename().string().substr(32)), bytes);
    }
  }
  std::vector<double> library, program;
  for (int i = 0; i < 10; ++i) {
    library.push_back(milliseconds([&] {
      if (runtime::Cache(directory, {}).stats().entries != static_cast<std::uint64_t>(entries)) std::abort();
    }));
    ::setenv("ADAMAS_CACHE_DIR", directory.c_str(), 1);
    program.push_back(milliseconds([&] {
      runtime::run_subprocess({ADAMAS_CLI, "cache", "stats", "--json"}, "", std::chrono::seconds(60));
    }));
  }
  print(fmt::format("stats of {} entries, in process", entries), median_of(library));
  print(fmt::format("adamas cache stats over {} entries", entries), median_of(program));
}

/// @return milliseconds of one run on an empty cache
double precompile(const std::string& specs, const std::string& targets, int jobs) {
  const ScratchFolder folder;
  ::setenv("ADAMAS_CACHE_DIR", (folder / "cache").c_str(), 1);
  const auto result =
      runtime::run_subprocess({ADAMAS_CLI, "precompile", "--specs", "-", "--targets", targets, "--jobs",
                               std::to_string(jobs), "--out", folder / "out.pack", "--json"},
                              specs, std::chrono::hours(1));
  const auto report = nlohmann::json::parse(result.output);
  const double ms = report.at("ms");
  print(fmt::format("precompile for {} with {} job{}", targets, jobs, jobs == 1 ? "" : "s"),
        fmt::format("{} kernel sets, {} compiles, {}, in {}", report.at("kernel_sets").get<int>(),
                    report.at("compiles").get<int>(), tools::human_bytes(report.at("bytes")),
                    tools::human_milliseconds(ms)));
  return ms;
}

void bench_precompile(int specs, const std::string& targets) {
  std::string list;
  for (int i = 0; i < specs; ++i)
    list += fmt::format("head_dim={} group={} budget={} kv_type=bf16\n", i % 2 == 0 ? 64 : 128, 1 + i / 2 % 8,
                        64 << (i / 16 % 4));
  const double one = precompile(list, targets, 1);
  const int cpus = runtime::usable_cpus();
  print(fmt::format("{} jobs over one", cpus), fmt::format("{:.2f}x", one / precompile(list, targets, cpus)));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times of the kernel cache"};
  std::vector<std::string> parts{"lookup", "start", "stats", "precompile"};
  int entries = 10'000, specs = 64;
  std::string targets = "sm_80,sm_90a";
  app.add_option("--parts", parts, "lookup, start, stats, precompile (default: all)")->delimiter(',');
  app.add_option("--entries", entries, "entries that stats counts");
  app.add_option("--specs", specs, "Specs that are precompiled");
  app.add_option("--targets", targets, "for these targets");
  CLI11_PARSE(app, argc, argv);
  try {
    for (const std::string& part : parts) {
      if (part == "lookup") {
        bench_lookup("x86-64-v3");
        bench_lookup("sm_90a");
      } else if (part == "start") {
        bench_start();
      } else if (part == "stats") {
        bench_stats(entries);
      } else if (part == "precompile") {
        bench_precompile(specs, targets);
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "adamas_cache_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
