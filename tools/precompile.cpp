// `adamas precompile`: a list of Specs for a list of targets into one pack, on a machine that needs no GPU. What is
// compiled goes through the cache, so that an interrupted run goes on where it was.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/device/cpu_count.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "runtime/dispatch/units.hpp"
#include "tools/cli.hpp"
#include "tools/kernel_request.hpp"
#include "tools/spec_list.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using Clock = std::chrono::steady_clock;

struct PrecompileOptions {
  std::vector<std::string> spec_files, specs;
  std::string targets = "host", tuning, out;
  int jobs = 0;
  bool json = false;
};

/// One unit of one Spec for one target.
struct Work {
  std::size_t set;  // index into the kernel sets
  codegen::Unit unit;
};

struct KernelSet {
  codegen::Spec spec;
  codegen::Tuning tuning;
  std::string target;
  std::string device_name;  ///< of a tuning file: on what the Tuning was found,
  std::optional<runtime::TunedShape> shape = std::nullopt;  ///< and for which shape
};

/// A compiler, and the identity that its entries carry; "" when it is not there.
struct Toolchain {
  std::shared_ptr<runtime::Compiler> compiler;
  std::string build_id;
};

std::vector<codegen::Spec> specs_of(const PrecompileOptions& options) {
  std::string whole;
  std::vector<codegen::Spec> specs;
  const auto add = [&](const std::string& name, const std::string& text) {
    for (codegen::Spec& spec : parse_spec_list(name, text)) {
      if (std::ranges::find(specs, spec) == specs.end()) specs.push_back(std::move(spec));
    }
  };
  for (const std::string& file : options.spec_files)
    add(file, read_text("specs", file));
  for (const std::string& text : options.specs)
    add("--spec", text.empty() ? "head_dim=128" : text);  // the default Spec
  if (specs.empty())
    throw Error(ADAMAS_INVALID_ARGUMENT, "specs", "none", "must name at least one Spec",
                "--specs FILE with a Spec a line, or --spec \"key=value ...\"");
  return specs;
}

TuningTable tunings_of(const std::string& tuning) {
  if (tuning.empty()) return {};
  if (tuning.find('=') != tuning.npos && !std::filesystem::exists(tuning)) return TuningTable::of(tuning);
  return TuningTable(tuning, read_text("tuning", tuning));
}

/// The tuning file that --tuning names, if it is one.
runtime::TuningFile tuning_file_of(const std::string& tuning) {
  if (tuning.empty() || !std::filesystem::exists(tuning)) return {};
  const std::string text = read_text("tuning", tuning);
  return text.starts_with('{') ? runtime::TuningFile::parse(tuning, text) : runtime::TuningFile();
}

/// All of it is checked before any of it is compiled.
std::vector<KernelSet> kernel_sets(const PrecompileOptions& options) {
  const std::vector<codegen::Spec> specs = specs_of(options);
  const runtime::TuningFile tuned = tuning_file_of(options.tuning);
  const TuningTable tunings = tuned.entries().empty() ? tunings_of(options.tuning) : TuningTable();
  std::vector<KernelSet> sets;
  for (const std::string& name : split_targets(options.targets)) {
    const std::string target = runtime::resolve_target(name);
    for (const codegen::Spec& spec : specs) {
      bool any = false;
      for (const runtime::TunedEntry& entry : tuned.entries()) {
        if (entry.spec != spec.text() || entry.target != target) continue;
        sets.push_back({spec, codegen::Tuning::parse(entry.tuning, spec, target), target, entry.device_name,
                        entry.shape});
        any = true;
      }
      if (any) continue;
      KernelSet set{spec, tunings.tuning(spec, target, name), target, {}};
      try {
        codegen::generator_for(target).check(spec, set.tuning, target);
      } catch (const Error& error) {
        throw Error(error.code(), error.field(), error.value(),
                    fmt::format("{} (of \"{}\" for {})", error.rule(), short_spec(spec.text()), short_target(target)),
                    error.hint());
      }
      sets.push_back(std::move(set));
    }
  }
  return sets;
}

/// "[#####.....] 37 of 128 units, 12 compiled, about 40 s left"
std::string bar(std::size_t done, std::size_t all, std::size_t compiled, double seconds) {
  constexpr std::size_t kWidth = 24;
  const std::size_t filled = done * kWidth / all;
  std::string text = fmt::format("[{}{}] {} of {} units, {} compiled", std::string(filled, '#'),
                                 std::string(kWidth - filled, '.'), done, all, compiled);
  if (done > 0 && done < all && seconds > 1)
    text += fmt::format(", about {:.0f} s left", seconds / static_cast<double>(done) * static_cast<double>(all - done));
  return text;
}

/// Runs the work on threads and collects the pack.
class Run {
 public:
  Run(const std::vector<KernelSet>& sets, runtime::Cache& cache, bool quiet)
      : sets_(sets), cache_(cache), progress_(quiet) {
    for (std::size_t i = 0; i < sets.size(); ++i) {
      const KernelSet& set = sets[i];
      runtime::PackedSet packed{.target = set.target, .spec = set.spec.text(), .tuning = set.tuning.text()};
      if (set.shape) {
        packed.device_name = set.device_name;
        packed.batch = set.shape->batch, packed.kv_heads = set.shape->kv_heads, packed.tokens = set.shape->tokens;
      }
      writer_.add_set(std::move(packed));
      for (const codegen::Unit unit : codegen::generator_for(set.target).units(set.spec, set.tuning, set.target))
        work_.push_back({i, unit});
      if (toolchains_.contains(set.target)) continue;
      Toolchain& toolchain = toolchains_[set.target];
      toolchain.compiler = runtime::compiler_for(set.target);
      if (toolchain.compiler->unavailable().empty()) toolchain.build_id = toolchain.compiler->build_id();
    }
  }

  /// @throws what the first failed compile threw, after the others have ended
  void work_on(int jobs) {
    start_ = Clock::now();
    std::vector<std::thread> threads;
    for (int i = 0; i < jobs; ++i)
      threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads)
      thread.join();
    if (failure_) std::rethrow_exception(failure_);
  }

  const runtime::PackWriter& writer() const { return writer_; }
  std::size_t compiled() const { return compiled_; }
  double compile_ms() const { return compile_ms_; }

 private:
  void work() {
    for (std::size_t i; !failed_ && (i = next_++) < work_.size();) {
      try {
        make(work_[i]);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        failed_ = true;
      }
    }
  }

  void make(const Work& item) {
    const KernelSet& set = sets_[item.set];
    const Toolchain& toolchain = toolchains_.at(set.target);
    const runtime::CacheKey key =
        runtime::unit_key(set.spec, set.tuning, set.target, item.unit, *toolchain.compiler);
    const auto compile = [&](const runtime::CacheKey& missing) {
      return runtime::compile_unit(*toolchain.compiler, missing);
    };
    runtime::CacheEntry entry = cache_.get({key}, compile);
    // The same command with the same compiler makes the same pack, whoever filled the cache before.
    if (entry.compiler.find(toolchain.build_id) == std::string::npos) entry = cache_.put(key, compile(key));
    const runtime::EntryInfo info{.digest = key.digest(),
                                  .unit = key.unit,
                                  .spec = key.spec,
                                  .tuning = key.tuning,
                                  .target = key.target,
                                  .options = key.options,
                                  .compiler = entry.compiler};
    writer_.add(info, key.text(), *entry.binary);
    const std::lock_guard lock(mutex_);
    ++done_;
    if (entry.origin == runtime::CacheEntry::Origin::compiled) {
      ++compiled_;
      compile_ms_ += entry.compile_ms;
    }
    show();
  }

  /// The caller holds the mutex. Where lines cannot be replaced, ten of them are enough.
  void show() {
    if (isatty(STDERR_FILENO) != 1 && done_ * 10 / work_.size() == (done_ - 1) * 10 / work_.size()) return;
    const std::chrono::duration<double> elapsed = Clock::now() - start_;
    progress_.say(bar(done_, work_.size(), compiled_, elapsed.count()));
  }

  const std::vector<KernelSet>& sets_;
  runtime::Cache& cache_;
  std::map<std::string, Toolchain> toolchains_;  // by target
  std::vector<Work> work_;
  runtime::PackWriter writer_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> failed_{false};
  Clock::time_point start_;
  std::mutex mutex_;  // guards what follows
  Progress progress_;
  std::exception_ptr failure_;
  std::size_t done_ = 0, compiled_ = 0;
  double compile_ms_ = 0;
};

int precompile(const PrecompileOptions& options) {
  const std::vector<KernelSet> sets = kernel_sets(options);
  // Without a cache folder the pack of an earlier run is what can be gone on from.
  const char* more = ::secure_getenv("ADAMAS_PACKS");
  std::string packs = more == nullptr ? "" : more;
  if (std::filesystem::exists(options.out)) packs = options.out + ":" + packs;
  runtime::Cache cache(runtime::CacheOptions{.packs = packs, .log = warnings_to_stderr()});

  const auto start = Clock::now();
  const int jobs = options.jobs > 0 ? options.jobs : runtime::usable_cpus();
  Run run(sets, cache, options.json);
  run.work_on(jobs);
  const std::uint64_t bytes = run.writer().write(options.out, jobs);
  const std::chrono::duration<double, std::milli> elapsed = Clock::now() - start;

  const std::size_t entries = run.writer().entries(), found = entries - std::min(entries, run.compiled());
  if (options.json) {
    print_json({{"out", options.out},
                {"bytes", bytes},
                {"kernel_sets", sets.size()},
                {"entries", entries},
                {"compiles", run.compiled()},
                {"found", found},
                {"compile_ms", run.compile_ms()},
                {"ms", elapsed.count()},
                {"jobs", jobs}});
    return 0;
  }
  std::printf("%s: %s, %zu kernel sets in %zu entries; %zu compiled (%s of compile time), %zu found, in %s with %d %s\n",
              options.out.c_str(), human_bytes(bytes).c_str(), sets.size(), entries, run.compiled(),
              human_milliseconds(run.compile_ms()).c_str(), found, human_milliseconds(elapsed.count()).c_str(), jobs,
              jobs == 1 ? "job" : "jobs");
  std::printf("use it with ADAMAS_PACKS=%s\n", std::filesystem::absolute(options.out).c_str());
  return 0;
}

}  // namespace

void add_precompile(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<PrecompileOptions>();
  CLI::App* command = app.add_subcommand("precompile", "Compile a list of Specs for a list of targets into a pack");
  command->add_option("--specs", options->spec_files,
                      "files with a Spec a line (-: standard input); head_dim=64,128 group=1..8 is a product");
  command->add_option("--spec", options->specs, "one Spec or product");
  command->add_option("--targets,--target", options->targets,
                      "sm_80,sm_90a,x86-64-v3,host, ... (default: host)");
  command->add_option("--tuning", options->tuning,
                      "a tuning file of `adamas tune`, which the pack then carries; a file of lines \"target [Spec keys] -> "
                      "Tuning\"; or one Tuning for all (key=value ...)");
  command->add_option("--out", options->out, "the pack to write; one that is there is replaced")->required();
  command->add_option("--jobs", options->jobs, "compiles at once (default: one a CPU)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "one JSON object; no progress");
  command->footer(
      "Needs no GPU. An interrupted run goes on where it was: what is compiled is in the cache.\n\n"
      "Example:\n  adamas precompile --spec \"head_dim=128 group=1..8 kv_type=bf16\" "
      "--targets sm_80,sm_90a,x86-64-v3 --out adamas.pack");
  command->callback([options, &chosen] { chosen = [options] { return precompile(*options); }; });
}

}  // namespace adamas::tools
