// Host time of calls that only enqueue: see host_cost.hpp.
#include "tools/host_cost.hpp"

#include <chrono>
#include <string>
#include <vector>

#include "codegen/templates.hpp"
#include "tools/timing.hpp"

namespace adamas::tools {

double call_nanoseconds(const runtime::Device& device, runtime::Stream stream,
                        const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRounds = 200, kCalls = 8, kWarmUp = 20;
  std::vector<double> samples;
  for (int round = 0; round < kRounds + kWarmUp; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < kCalls; ++i)
      call();
    const auto end = Clock::now();
    device.synchronize(stream);
    if (round >= kWarmUp)
      samples.push_back(std::chrono::duration<double, std::nano>(end - start).count() / kCalls);
  }
  return summarize(std::move(samples)).median;
}

double launch_nanoseconds(const runtime::Device& device, runtime::Stream stream) {
  const std::string source =
      std::string(codegen::embedded_template("args.h")) +
      "extern \"C\" __global__ void adamas_scan(const __grid_constant__ adamas_abi::Args) {}\n";
  const auto binary = device.compiler()->compile({.name = "empty",
                                                  .source = source,
                                                  .target = device.targets().front(),
                                                  .options = {},
                                                  .spec_text = "empty launch"});
  const std::vector stages{codegen::Stage::scan};
  const auto module = device.load("empty", binary.binary, stages);
  const adamas_abi::Args args{};
  const codegen::Grid grid{.x = 1, .y = 1, .z = 1, .threads = 32, .shared_bytes = 0};
  return call_nanoseconds(device, stream, [&] { module->launch(codegen::Stage::scan, grid, args, stream); });
}

}  // namespace adamas::tools
