// Measurements of bench: see bench_measure.hpp.
#include "tools/bench_measure.hpp"

#include <algorithm>
#include <cmath>

#include "codegen/facts.hpp"
#include "tools/host_cost.hpp"
#include "tools/traffic.hpp"

namespace adamas::tools {
namespace {

constexpr int kGraphSteps = 64;  // enough that the gap between two replays does not count
constexpr int kPassSteps = 4;

/// Kernels, caches and a stream for one Spec and shape.
class Problem {
 public:
  Problem(const BenchMachine& machine, const codegen::Spec& spec, const BenchShape& shape,
          const BenchOptions& options)
      : machine_(machine),
        seconds_(options.seconds),
        layout_(lay_out(spec, shape, options.scattered)),
        kernel_(machine.context.prepare(spec.text(), layout_.capacity, options.tuning)) {
    const auto info = kernel_.info();
    for (const std::int64_t length : shape.lengths) {
      const std::int64_t seen = spec.window ? std::min<std::int64_t>(length, kBenchWindow) : length;
      bytes += sparse_bytes(spec, static_cast<int>(info.code_row_bytes), shape.kv_heads, seen);
      all_bytes += dense_bytes(spec, shape.kv_heads, seen);
      token_heads += static_cast<double>(seen) * shape.kv_heads * spec.query_rows;
    }
    code_row_bytes = info.code_row_bytes;
    set_bytes = dense_bytes(spec, shape.kv_heads, layout_.slots) + static_cast<double>(info.code_bytes);
    sets = rotated_sets(bytes, set_bytes, machine.cold_bytes, machine.memory_bytes);
    // Whole turns, so that every set is used as often.
    steps = (std::max(machine.graphs ? kGraphSteps : kPassSteps, sets) + sets - 1) / sets * sets;
    data_.emplace(machine.context, machine.device, spec, kernel_, layout_, sets, options.keys);
    stream_ = machine.device.make_stream();
  }

  const Kernel& kernel() const { return kernel_; }
  const BenchData& data() const { return *data_; }
  const BenchLayout& layout() const { return layout_; }
  runtime::Stream stream() const { return stream_->get(); }

  /// A call with workspace.
  Call call(int step, const Buffer<std::byte>& workspace) const {
    Call call = data_->call(step);
    call.workspace = workspace.data();
    call.workspace_bytes = workspace.size();
    return call;
  }
  Buffer<std::byte> workspace_of(const Plan& plan) const {
    const auto info = plan.info();
    return machine_.context.allocate<std::byte>(std::max(info.workspace_bytes, info.dense_workspace_bytes));
  }

  /// `step(i, stream)` enqueues step i.
  template <class Step>
  std::unique_ptr<runtime::Recording> record(const Step& step) const {
    return stream_->record([this, &step](runtime::Stream on) {
      for (int i = 0; i < steps; ++i)
        step(i, on);
    });
  }
  template <class Step>
  Timing time(const Step& step) const {
    return time_replays(*record(step), steps, seconds_);
  }

  double bytes = 0, all_bytes = 0;  // that a sparse and a dense step must read
  double token_heads = 0;           // tokens x K/V heads that a step scans
  double code_row_bytes = 0;
  double set_bytes = 0;  // of one cache with its codes
  int sets = 1, steps = 1;

 private:
  const BenchMachine& machine_;
  double seconds_;
  BenchLayout layout_;
  Kernel kernel_;
  std::optional<BenchData> data_;  // after the sizes above are known
  std::unique_ptr<runtime::OwnStream> stream_;
};

StageTimes time_stages(const Problem& problem, const Plan& plan, const Buffer<std::byte>& workspace,
                       int group, double seconds) {
  StageTimes times = tools::time_stages(
      plan, [&](int step) { return problem.call(step, workspace); }, problem.steps, seconds);
  times.token_queries = problem.token_heads * group;
  times.code_bytes = problem.token_heads * problem.code_row_bytes;
  return times;
}

EncodeTiming time_encode(const Problem& problem, const Plan& plan, const Buffer<std::byte>& workspace,
                         const codegen::Spec& spec) {
  EncodeTiming timing;
  timing.key_bytes = static_cast<double>(problem.layout().slots) * problem.layout().capacity.kv_heads *
                     spec.head_dim / codegen::storage_unit(spec.kv_type).elements *
                     codegen::storage_unit(spec.kv_type).bytes;
  timing.all = problem.time([&](int step, runtime::Stream stream) {
    problem.kernel().encode(problem.data().encode_all(step), stream);
  });
  timing.last = problem.time([&](int step, runtime::Stream stream) {
    problem.kernel().encode(problem.data().encode_last(step), stream);
  });
  timing.step = problem.time([&](int step, runtime::Stream stream) {
    const EncodeArgs last = problem.data().encode_last(step);
    Call call = problem.call(step, workspace);
    call.append_slots = last.slots;
    call.key_thresholds = last.key_thresholds;
    plan.decode(call, stream);
  });
  return timing;
}

}  // namespace

BenchRow measure_shape(const BenchMachine& machine, const codegen::Spec& spec, const BenchShape& shape,
                       const BenchOptions& options) {
  const Problem problem(machine, spec, shape, options);
  const Plan plan = problem.kernel().plan({.batch = shape.batch(), .dense_below = 0});
  const auto workspace = problem.workspace_of(plan);
  BenchRow row;
  row.shape = shape;
  row.spec = spec;
  row.tuning = problem.kernel().info().tuning;
  row.target = problem.kernel().info().target;
  row.bytes = problem.bytes;
  row.dense_bytes = problem.all_bytes;
  row.sets = problem.sets;
  row.set_bytes = problem.set_bytes;
  row.steps = problem.steps;

  const auto decode = [&](int step, runtime::Stream stream) {
    plan.decode(problem.call(step, workspace), stream);
  };
  const auto recording = problem.record(decode);
  row.sparse = time_replays(*recording, problem.steps, options.seconds);
  row.dense = problem.time(
      [&](int step, runtime::Stream stream) { plan.dense(problem.call(step, workspace), stream); });
  if (options.encode) row.encode = time_encode(problem, plan, workspace, spec);
  if (!machine.graphs) row.stages = time_stages(problem, plan, workspace, spec.group, options.seconds);
  if (machine.graphs) {
    const Call call = problem.call(0, workspace);
    row.host = HostCost{.call_ns = call_nanoseconds(machine.device, problem.stream(),
                                                    [&] { plan.decode(call, problem.stream()); }),
                        .launches = static_cast<double>(recording->operations()) / problem.steps,
                        .launch_ns = machine.launch_ns};
  }
  return row;
}

Crossover find_crossover(const BenchMachine& machine, const codegen::Spec& spec, const BenchShape& shape,
                         const BenchOptions& options) {
  constexpr std::int64_t kFirst = 256;
  Crossover crossover;
  int wins = 0;
  for (std::int64_t tokens = std::min(kFirst, shape.capacity); tokens <= shape.capacity && wins < 2;
       tokens *= 2) {
    // The capacity stays: launches are sized by it, so it is part of what short rows cost.
    BenchShape shorter = even_shape(shape.batch(), shape.kv_heads, tokens);
    shorter.capacity = shape.capacity;
    const Problem problem(machine, spec, shorter, options);
    const auto time_with = [&](std::int64_t dense_below) {
      const Plan plan = problem.kernel().plan({.batch = shape.batch(), .dense_below = dense_below});
      const auto workspace = problem.workspace_of(plan);
      return problem.time(
          [&](int step, runtime::Stream stream) { plan.decode(problem.call(step, workspace), stream); });
    };
    crossover.points.push_back({.tokens = tokens, .sparse = time_with(0), .dense = time_with(tokens)});
    const CrossoverPoint& point = crossover.points.back();
    wins = point.sparse.median < point.dense.median ? wins + 1 : 0;
  }
  crossover.dense_below = recommend_dense_below(crossover.points, spec.budget);
  return crossover;
}

std::int64_t recommend_dense_below(const std::vector<CrossoverPoint>& points, int budget) {
  const auto advantage = [](const CrossoverPoint& point) {
    return std::log(point.dense.median / point.sparse.median);  // above 0 where selection is faster
  };
  const auto last = std::find_if(points.rbegin(), points.rend(),
                                 [&](const CrossoverPoint& point) { return advantage(point) <= 0; });
  if (last == points.rend()) return budget;
  double tokens = static_cast<double>(last->tokens);
  if (last != points.rbegin()) {
    const CrossoverPoint& next = *std::prev(last);
    const double share = advantage(*last) / (advantage(*last) - advantage(next));
    tokens *= std::pow(static_cast<double>(next.tokens) / tokens, share);
  }
  return std::max<std::int64_t>(budget, std::llround(tokens));
}

}  // namespace adamas::tools
