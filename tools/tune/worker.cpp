// The worker of `adamas tune`: opens a device and a shape's data, then prepares, checks and times the Tunings
// that it is asked for. Started by tune, never by people; see worker_process.hpp.
#include <cmath>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/spec.hpp"
#include "runtime/numbers.hpp"
#include "tools/bandwidth.hpp"
#include "tools/bench_data.hpp"
#include "tools/bench_shapes.hpp"
#include "tools/cli.hpp"
#include "tools/traffic.hpp"

namespace adamas::tools {
namespace {

using nlohmann::json;

constexpr int kSteps = 8;  // of a pass, at least: enough that what begins and ends it does not count

/// What a decode answered, on the host.
struct Answer {
  std::vector<std::int32_t> positions, counts;
  std::vector<std::byte> out;
};

/// Relative error of `out` against `reference`, L2 over L2. Values that are no numbers are an infinite error.
double relative_error(const Answer& answer, const Answer& reference, codegen::ElementType type) {
  const auto width = static_cast<std::size_t>(codegen::storage_unit(type).bytes);
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < reference.out.size() / width; ++i) {
    const double a = runtime::load_element(answer.out.data(), static_cast<std::int64_t>(i), type);
    const double b = runtime::load_element(reference.out.data(), static_cast<std::int64_t>(i), type);
    error += (a - b) * (a - b), norm += b * b;
  }
  const double relative = std::sqrt(error / std::max(norm, 1e-30));
  return std::isfinite(relative) ? relative : INFINITY;
}

/// One Tuning, ready to be timed.
struct Candidate {
  Kernel kernel;
  Plan plan;
  Buffer<std::byte> workspace;
  std::unique_ptr<runtime::Recording> recording;
};

class Bench {
 public:
  explicit Bench(const json& request)
      : context_(request.at("device").get<std::string>().c_str()),
        device_(runtime::open_device(context_.info().device, 0)),
        spec_(codegen::Spec::parse(request.at("spec").get<std::string>())),
        shape_(even_shape(request.at("batch"), request.at("kv_heads"), request.at("tokens"))),
        layout_(lay_out(spec_, shape_, true)),
        first_(context_.prepare(spec_.text(), layout_.capacity, request.at("tuning").get<std::string>())),
        stream_(device_->make_stream()) {
    const auto info = first_.info();
    const double all = dense_bytes(spec_, shape_.kv_heads, layout_.slots);
    bytes_ = 0;
    for (const std::int64_t length : shape_.lengths) {
      const std::int64_t seen = spec_.window ? std::min<std::int64_t>(length, kBenchWindow) : length;
      bytes_ += sparse_bytes(spec_, static_cast<int>(info.code_row_bytes), shape_.kv_heads, seen);
    }
    dense_ = request.value("dense", false);
    if (dense_) bytes_ = all;
    const int sets = rotated_sets(bytes_, all + static_cast<double>(info.code_bytes), cold_bytes(*device_),
                                  request.at("memory_bytes").get<double>());
    steps_ = (std::max(kSteps, sets) + sets - 1) / sets * sets;
    data_.emplace(context_, *device_, spec_, first_, layout_, sets, KeyPattern::random);
    positions_.emplace(context_.allocate<std::int32_t>(lists() * static_cast<std::size_t>(spec_.budget)));
    counts_.emplace(context_.allocate<std::int32_t>(lists()));
  }

  /// Bytes that a step must read.
  json describe() const { return {{"bytes", bytes_}}; }

  json prepare(const std::string& tuning) {
    if (candidates_.contains(tuning)) return json::object();
    Kernel kernel = context_.prepare(spec_.text(), layout_.capacity, tuning);
    Plan plan = kernel.plan({.batch = shape_.batch(), .dense_below = 0});
    const auto info = plan.info();
    Buffer<std::byte> workspace =
        context_.allocate<std::byte>(std::max(info.workspace_bytes, info.dense_workspace_bytes));
    auto candidate = std::make_unique<Candidate>(
        Candidate{std::move(kernel), std::move(plan), std::move(workspace), nullptr});
    if (!reference_) reference_ = staged(*candidate);
    if (const std::string why = difference(decoded(*candidate)); !why.empty()) return {{"error", why}};
    const Candidate& ready = *candidate;
    candidate->recording = stream_->record([&](runtime::Stream on) {
      for (int i = 0; i < steps_; ++i)
        run(ready, call(ready, i), on);
    });
    candidates_.emplace(tuning, std::move(candidate));
    return json::object();
  }

  /// One pass of each in turn, round by round.
  json measure(const std::vector<std::string>& tunings, int rounds) {
    std::vector<std::vector<double>> us(tunings.size());
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < tunings.size(); ++i)
        us[i].push_back(candidates_.at(tunings[i])->recording->replay(1).front() / steps_);
    }
    return {{"us", us}};
  }

 private:
  std::size_t lists() const {
    const int of_head = codegen::facts_of(spec_).selections_per_kv_head;
    return static_cast<std::size_t>(shape_.batch()) * spec_.query_rows * shape_.kv_heads * of_head;
  }

  Call call(const Candidate& candidate, int step) const {
    Call call = data_->call(step);
    call.workspace = candidate.workspace.data();
    call.workspace_bytes = candidate.workspace.size();
    return call;
  }
  void run(const Candidate& candidate, const Call& call, runtime::Stream stream) const {
    if (dense_) {
      candidate.plan.dense(call, stream);
    } else {
      candidate.plan.decode(call, stream);
    }
  }

  Answer answer(const Call& call) const {
    const std::size_t width = static_cast<std::size_t>(codegen::storage_unit(spec_.out_type).bytes);
    Answer answer;
    answer.out.resize(static_cast<std::size_t>(shape_.batch()) * spec_.query_rows * shape_.kv_heads *
                      spec_.group * spec_.value_dim * width);
    device_->copy_to_host(answer.out.data(), call.out, answer.out.size(), stream_->get());
    if (dense_) return answer;
    answer.positions = positions_->download(stream_->get());
    answer.counts = counts_->download(stream_->get());
    return answer;
  }

  /// By the operations one after the other: what every schedule must agree with.
  Answer staged(const Candidate& candidate) const {
    Call call = this->call(candidate, 0);
    if (dense_) {
      candidate.plan.dense(call, stream_->get());
      return answer(call);
    }
    call.positions = positions_->data(), call.counts = counts_->data();
    candidate.plan.select(call, stream_->get());
    candidate.plan.attend(call, stream_->get());
    return answer(call);
  }
  Answer decoded(const Candidate& candidate) const {
    Call call = this->call(candidate, 0);
    if (!dense_) call.positions = positions_->data(), call.counts = counts_->data();
    run(candidate, call, stream_->get());
    return answer(call);
  }

  /// Selections are equal; attention differs in the last bits alone.
  std::string difference(const Answer& answer) const {
    constexpr double kMostError = 4e-3;  // between two orders of summation, rounded to bf16
    if (answer.positions != reference_->positions || answer.counts != reference_->counts)
      return "selects other tokens than the reference";
    const double error = relative_error(answer, *reference_, spec_.out_type);
    return error <= kMostError ? "" : fmt::format("differs from the reference by {:.2g} of its norm", error);
  }

  Context context_;
  std::shared_ptr<runtime::Device> device_;
  codegen::Spec spec_;
  BenchShape shape_;
  BenchLayout layout_;
  Kernel first_;
  std::unique_ptr<runtime::OwnStream> stream_;
  double bytes_ = 0;
  bool dense_ = false;
  int steps_ = 1;
  std::optional<BenchData> data_;
  std::optional<Buffer<std::int32_t>> positions_, counts_;
  std::optional<Answer> reference_;
  std::map<std::string, std::unique_ptr<Candidate>> candidates_;
};

json answer_to(const json& request, std::unique_ptr<Bench>& bench) {
  const std::string operation = request.at("op");
  if (operation == "open") {
    bench.reset();  // its memory first
    bench = std::make_unique<Bench>(request);
    return bench->describe();
  }
  if (!bench) throw std::runtime_error("nothing is open");
  if (operation == "prepare") return bench->prepare(request.at("tuning"));
  if (operation == "measure") return bench->measure(request.at("tunings"), request.at("rounds"));
  throw std::runtime_error("unknown operation " + operation);
}

int work() {
  std::unique_ptr<Bench> bench;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = answer_to(json::parse(line), bench);
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
  return 0;
}

}  // namespace

void add_tune_worker(CLI::App& app, Action& chosen) {
  auto* command = app.add_subcommand("tune-worker", "Times Tunings for `adamas tune`, which starts it");
  command->group("");  // not listed
  command->callback([&chosen] { chosen = work; });
}

}  // namespace adamas::tools
