// Times of the stages: see bench_stages.hpp.
#include "tools/bench_stages.hpp"

#include <chrono>
#include <vector>

#include "runtime/device/cpu_count.hpp"
#include "runtime/dispatch/handle.hpp"
#include "runtime/dispatch/operations.hpp"

namespace adamas::tools {

StageTimes time_stages(const Plan& plan, const std::function<Call(int)>& call_of, int steps, double seconds) {
  using Clock = std::chrono::steady_clock;
  using codegen::Stage;
  const auto microseconds = [](Clock::duration time) {
    return std::chrono::duration<double, std::micro>(time).count();
  };
  const runtime::Plan& stages = *plan.get()->plan;
  const auto timed = [&](std::initializer_list<Stage> list, const Call& call) {
    const auto start = Clock::now();
    for (const Stage stage : list)
      runtime::run_stage(stages, call, stage, nullptr);
    return microseconds(Clock::now() - start);
  };

  std::vector<double> prepare, scan, warm_scan, select, attend;
  const auto begin = Clock::now();
  const std::size_t least = std::max<std::size_t>(kLeastSamples, static_cast<std::size_t>(steps));
  for (int step = 0; scan.size() < least || microseconds(Clock::now() - begin) < 1e6 * seconds; ++step) {
    const Call call = call_of(step % steps);
    prepare.push_back(timed({Stage::prepare_query}, call));
    scan.push_back(timed({Stage::scan}, call));
    warm_scan.push_back(timed({Stage::scan}, call));
    select.push_back(timed({Stage::select}, call));
    attend.push_back(timed({Stage::attend, Stage::merge}, call));
  }
  return {.prepare = summarize(std::move(prepare)),
          .scan = summarize(std::move(scan)),
          .select = summarize(std::move(select)),
          .attend = summarize(std::move(attend)),
          .warm_scan = summarize(std::move(warm_scan)),
          .threads = runtime::usable_cpus()};
}

}  // namespace adamas::tools
