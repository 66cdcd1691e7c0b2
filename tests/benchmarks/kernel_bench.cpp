// adamas_kernel_bench: the CPU's generated kernels stage by stage, on one thread, under Google Benchmark.
// Names are STAGE/ESTIMATOR/buckets:N/{warm,cold}: cold takes a cache of its own from memory in every
// iteration, warm one that fits the processor's caches. `each` is the time of one token and query (scan,
// select), of one attended token and query (attend), of one token and K/V head (encode). plan/entries:N is
// the making of a plan by a kernel that a tuning file has N shapes of; N = 0: without a file.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <adamas/adamas.hpp>

#include "codegen/format.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"
#include "runtime/dispatch/handle.hpp"
#include "runtime/dispatch/operations.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "tools/bandwidth.hpp"
#include "tools/bench_data.hpp"
#include "tools/bench_shapes.hpp"
#include "tools/traffic.hpp"

namespace {

using adamas::codegen::Spec;
using adamas::codegen::Stage;
namespace tools = adamas::tools;
namespace runtime = adamas::runtime;

constexpr double kMemoryBytes = 1e9;  // that the caches of one problem take at most

/// Kernels and caches of one Spec.
struct Problem {
  Problem(const std::string& spec_text, bool cold)
      : spec(Spec::parse(spec_text)),
        shape(cold ? tools::even_shape(1, 8, 32768) : tools::even_shape(1, 1, 8192)),
        layout(tools::lay_out(spec, shape, false)),
        kernel(context().prepare(spec.text(), layout.capacity)),
        info(kernel.info()),
        sets(cold ? std::max(2, tools::rotated_sets(code_bytes(), set_bytes(), tools::cold_bytes(device()),
                                                    kMemoryBytes))
                  : 1),
        data(context(), device(), spec, kernel, layout, sets, tools::KeyPattern::random),
        plan(kernel.plan({.batch = 1, .dense_below = 0})),
        workspace(context().allocate<std::byte>(plan.info().workspace_bytes)) {}

  static const adamas::Context& context() {
    static const adamas::Context one(adamas::ContextOptions{.device = "cpu", .threads = 1});
    return one;
  }
  static const runtime::Device& device() {
    static const auto one = runtime::open_device("cpu", 1);
    return *one;
  }

  adamas::Call call(int step) const {
    adamas::Call call = data.call(step);
    call.workspace = workspace.data();
    call.workspace_bytes = workspace.size();
    return call;
  }
  double tokens() const { return static_cast<double>(shape.capacity) * shape.kv_heads; }
  double code_bytes() const { return tokens() * info.code_row_bytes; }
  double set_bytes() const {
    return tools::dense_bytes(spec, shape.kv_heads, shape.capacity) + static_cast<double>(info.code_bytes);
  }

  const Spec spec;
  const tools::BenchShape shape;
  const tools::BenchLayout layout;
  const adamas::Kernel kernel;
  const adamas_kernel_info info;
  const int sets;
  const tools::BenchData data;
  const adamas::Plan plan;
  const adamas::Buffer<std::byte> workspace;
};

/// The problem of the benchmark that runs. One at a time: cold ones take much memory.
const Problem& problem_of(const std::string& spec, bool cold) {
  static std::unique_ptr<Problem> current;
  static std::string name;
  const std::string wanted = fmt::format("{} {}", spec, cold);
  if (name != wanted) {
    current.reset();
    current = std::make_unique<Problem>(spec, cold);
    name = wanted;
  }
  return *current;
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report(benchmark::State& state, double units, double bytes) {
  state.counters["each"] =
      benchmark::Counter(units, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
  if (bytes > 0)
    state.SetBytesProcessed(static_cast<std::int64_t>(bytes * static_cast<double>(state.iterations())));
}

/// Times one stage of decode; those before it run untimed.
void time_stage(benchmark::State& state, const std::string& spec, bool cold, Stage timed) {
  const Problem& problem = problem_of(spec, cold);
  const runtime::Plan& plan = *problem.plan.get()->plan;
  int step = 0;
  for (auto iteration : state) {
    const adamas::Call call = problem.call(step++);
    for (const Stage stage : runtime::kDecodeStages) {
      const double seconds = seconds_of([&] { runtime::run_stage(plan, call, stage, nullptr); });
      if (stage != timed) continue;
      state.SetIterationTime(seconds);
      break;
    }
  }
  const double queries = problem.shape.kv_heads * problem.spec.group;
  const double attended = queries * problem.spec.budget;
  if (timed == Stage::attend) {
    report(state, attended, tools::dense_bytes(problem.spec, 1, static_cast<std::int64_t>(attended)));
  } else {
    report(state, problem.tokens() * problem.spec.group, timed == Stage::scan ? problem.code_bytes() : 0);
  }
}

void time_encode(benchmark::State& state, const std::string& spec, bool cold) {
  const Problem& problem = problem_of(spec, cold);
  int step = 0;
  for (auto iteration : state) {
    const auto args = problem.data.encode_all(step++);
    state.SetIterationTime(seconds_of([&] { problem.kernel.encode(args); }));
  }
  report(state, problem.tokens(), problem.tokens() * problem.spec.head_dim * 2);
}

/// A tuning file of `count` shapes within `capacity`, whose Tunings differ.
std::string tuning_file(const Spec& spec, const std::string& target, int count) {
  runtime::TuningFile file;
  for (int i = 0; i < count; ++i) {
    const auto tuning = adamas::codegen::Tuning::parse(i % 2 == 0 ? "" : "scan_tile=4096", spec, target);
    file.put({.spec = spec.text(),
              .target = target,
              .shape = {.batch = 1 + i % 3, .kv_heads = 8, .tokens = std::int64_t{1024} << i / 3},
              .tuning = tuning.text()});
  }
  const std::string path =
      (std::filesystem::temp_directory_path() / fmt::format("adamas-plan-bench-{}.json", count)).string();
  file.write(path);
  return path;
}

void time_plan(benchmark::State& state, int entries) {
  const Spec spec = Spec::parse("group=4 budget=256 page_size=64");
  const adamas::Capacity capacity{.max_batch = 4, .kv_heads = 8, .max_tokens = 131072};
  const std::string target = Problem::context().prepare(spec.text(), capacity).info().target;
  const std::string path = tuning_file(spec, target, entries);
  const adamas::Context context({.device = "cpu", .threads = 1, .tuning = path.c_str()});
  const adamas::Kernel kernel = context.prepare(spec.text(), capacity);
  for (auto iteration : state)
    benchmark::DoNotOptimize(kernel.plan({.batch = 2, .dense_below = 0, .expected_tokens = 30000}));
  std::filesystem::remove(path);
}

void register_benchmarks() {
  for (const int entries : {0, 1, 18})
    benchmark::RegisterBenchmark(fmt::format("plan/entries:{}", entries).c_str(),
                                 [=](benchmark::State& state) { time_plan(state, entries); });
  for (const bool cold : {false, true}) {
    for (const char* estimator : {"dot", "manhattan"}) {
      for (const int buckets : {4, 2, 16}) {
        const std::string spec =
            fmt::format("group=4 budget=256 page_size=64 estimator={} buckets={}", estimator, buckets);
        const std::string suffix =
            fmt::format("/{}/buckets:{}/{}", estimator, buckets, cold ? "cold" : "warm");
        const auto add = [&](const std::string& name, auto&& body) {
          benchmark::RegisterBenchmark((name + suffix).c_str(), body)
              ->UseManualTime()
              ->Unit(benchmark::kMicrosecond);
        };
        const struct {
          const char* name;
          Stage stage;
        } stages[] = {{"scan", Stage::scan}, {"select", Stage::select}, {"attend", Stage::attend}};
        for (const auto& [name, stage] : stages) {
          add(name, [=, timed = stage](benchmark::State& state) { time_stage(state, spec, cold, timed); });
        }
        add("encode", [=](benchmark::State& state) { time_encode(state, spec, cold); });
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  register_benchmarks();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
