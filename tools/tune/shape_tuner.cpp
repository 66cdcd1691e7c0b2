// Tuning of one shape: see shape_tuner.hpp.
#include "tools/tune/shape_tuner.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/target.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/dispatch/units.hpp"

namespace adamas::tools {
namespace {

using namespace std::chrono_literals;
using codegen::Error;
using codegen::Tuning;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

// A candidate that takes longer is taken for one that hangs. Opening fills gigabytes of memory.
constexpr auto kOpenLimit = 180s, kPrepareLimit = 60s;
constexpr auto kPassLimit = 2s;  // more than a hundred times the slowest step that makes sense

std::chrono::milliseconds measure_limit(std::size_t candidates, int rounds) {
  return 10s + static_cast<int>(candidates) * rounds * kPassLimit;
}

/// Compiles candidates into the cache folder, where the worker finds them: on threads, ahead of their use.
class Compiles {
 public:
  Compiles(const TuneTask& task, const std::vector<Tuning>& tunings)
      : task_(task),
        tunings_(tunings),
        compiler_(runtime::compiler_for(task.target)),
        failures_(tunings.size()),
        done_(tunings.size()) {
    for (int i = 0; i < task.jobs; ++i)
      threads_.emplace_back([this] { work(); });
  }
  ~Compiles() {
    next_ = tunings_.size();
    for (std::thread& thread : threads_)
      thread.join();
  }
  Compiles(const Compiles&) = delete;
  Compiles& operator=(const Compiles&) = delete;

  /// Waits for a candidate. "" or why it does not compile.
  std::string wait(std::size_t candidate) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_[candidate]; });
    return failures_[candidate];
  }
  std::size_t finished() const { return finished_; }

 private:
  void work() {
    for (std::size_t i; (i = next_++) < tunings_.size();) {
      std::string failure;
      try {
        for (const runtime::CacheKey& key :
             runtime::unit_keys(task_.spec, tunings_[i], task_.target, *compiler_))
          cache_.get({key},
                     [&](const runtime::CacheKey& missing) { return compile_unit(*compiler_, missing); });
      } catch (const std::exception& error) {
        failure = error.what();
      }
      const std::lock_guard lock(mutex_);
      failures_[i] = failure, done_[i] = true;
      ++finished_;
      changed_.notify_all();
    }
  }

  const TuneTask& task_;
  const std::vector<Tuning>& tunings_;
  runtime::Cache cache_{runtime::CacheOptions{}};
  std::shared_ptr<runtime::Compiler> compiler_;
  std::atomic<std::size_t> next_{0}, finished_{0};
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<std::string> failures_;
  std::vector<bool> done_;
  std::vector<std::thread> threads_;
};

/// Candidates on a worker. One that dies is replaced, and the next measurement makes its candidates ready
/// again.
class WorkerMeter : public Meter {
 public:
  WorkerMeter(const TuneTask& task, const runtime::TunedShape& shape, const std::vector<Tuning>& tunings,
              bool dense, Compiles* compiles, TuneObserver* observer)
      : task_(task),
        shape_(shape),
        tunings_(tunings),
        dense_(dense),
        compiles_(compiles),
        observer_(observer),
        ready_(tunings.size()) {}

  /// What the worker says of the shape.
  const json& description() {
    revive();
    return description_;
  }

  std::string prepare(std::size_t candidate) override {
    if (compiles_ != nullptr) {
      const std::string failure = compiles_->wait(candidate);
      if (observer_ != nullptr) observer_->compiled(compiles_->finished(), tunings_.size());
      if (!failure.empty()) return failure;
    }
    return load(candidate);
  }

  std::vector<Passes> measure(std::span<const std::size_t> candidates, int rounds) override {
    std::vector<Passes> passes(candidates.size());
    const auto all_fail = [&](const std::string& why) {
      for (Passes& p : passes)
        p.failure = why;
      return passes;
    };
    json tunings = json::array();
    for (const std::size_t candidate : candidates) {
      if (const std::string why = load(candidate); !why.empty()) return all_fail(why);
      tunings.push_back(tunings_[candidate].text());
    }
    const json answer = worker_->ask({{"op", "measure"}, {"tunings", tunings}, {"rounds", rounds}},
                                     measure_limit(candidates.size(), rounds));
    if (answer.contains("error")) {
      // A device that has reported an error may go on reporting it: begin with a new process.
      worker_.reset();
      return all_fail(answer.at("error"));
    }
    for (std::size_t i = 0; i < passes.size(); ++i)
      passes[i].us = answer.at("us").at(i).get<std::vector<double>>();
    return passes;
  }

 private:
  void revive() {
    if (worker_ && worker_->alive()) return;
    worker_ = std::make_unique<WorkerProcess>(task_.program);
    ready_.assign(tunings_.size(), false);
    description_ = open_shape(*worker_, task_, shape_, tunings_.front().text(), dense_);
  }

  std::string load(std::size_t candidate) {
    revive();
    if (ready_[candidate]) return "";
    const json answer =
        worker_->ask({{"op", "prepare"}, {"tuning", tunings_[candidate].text()}}, kPrepareLimit);
    if (answer.contains("error")) {
      worker_.reset();
      return answer.at("error");
    }
    ready_[candidate] = true;
    return "";
  }

  const TuneTask& task_;
  const runtime::TunedShape& shape_;
  const std::vector<Tuning>& tunings_;
  const bool dense_;
  Compiles* compiles_;
  TuneObserver* observer_;
  std::unique_ptr<WorkerProcess> worker_;
  json description_;
  std::vector<bool> ready_;  // in the worker
};

codegen::Shape launch_shape(const TuneTask& task, const runtime::TunedShape& shape) {
  return {.batch = shape.batch,
          .kv_heads = shape.kv_heads,
          .max_tokens = shape.tokens,
          .processors = task.processors};
}

SearchOptions search_options(const TuneTask& task, const std::function<bool()>& stop) {
  constexpr int kRoundsOfAll = 24;
  SearchOptions options;
  options.stop = stop;
  if (task.exhaustive) options.first_rounds = options.most_rounds = kRoundsOfAll;
  return options;
}

/// The dense_chunk that attending to all tokens is fastest with, in `record`.
void tune_dense(const TuneTask& task, ShapeRecord& record, const std::function<bool()>& stop,
                TuneObserver& observer) {
  const Tuning best = Tuning::parse(record.tunings[record.best], task.spec, task.target);
  const std::vector<Tuning> tunings = codegen::dense_tunings(task.spec, task.target, best);
  record.chosen = best.text();
  if (stop()) return;
  Compiles compiles(task, tunings);
  for (std::size_t i = 0; i < tunings.size(); ++i)
    compiles.wait(i);
  WorkerMeter meter(task, record.shape, tunings, true, &compiles, nullptr);
  SearchOptions options = search_options(task, stop);
  options.changed = [&](const std::vector<Trial>&, std::size_t candidate) {
    observer.trial(record, candidate, true);
  };
  const SearchResult result = search(meter, tunings.size(), options);
  record.passes += result.passes;
  record.chosen = tunings[result.best].text();
  record.dense_us = result.trials[result.best].us;
  record.dense_default_us = result.trials[result.best].default_us();
}

}  // namespace

json open_shape(WorkerProcess& worker, const TuneTask& task, const runtime::TunedShape& shape,
                const std::string& tuning, bool dense) {
  json answer = worker.ask({{"op", "open"},
                            {"device", task.device},
                            {"spec", task.spec.text()},
                            {"tuning", tuning},
                            {"batch", shape.batch},
                            {"kv_heads", shape.kv_heads},
                            {"tokens", shape.tokens},
                            {"memory_bytes", task.memory_bytes},
                            {"dense", dense}},
                           kOpenLimit);
  if (answer.contains("error")) {
    throw Error(ADAMAS_UNAVAILABLE, "tune",
                fmt::format("batch={} kv_heads={} tokens={}", shape.batch, shape.kv_heads, shape.tokens),
                "the shape cannot be set up: " + answer.at("error").get<std::string>());
  }
  return answer;
}

ShapeRecord tune_shape(const TuneTask& task, const runtime::TunedShape& shape,
                       const std::map<std::string, Trial>& known, const TuneStops& stops,
                       TuneObserver& observer) {
  const auto start = Clock::now();
  const codegen::TuningSpace space = codegen::tuning_space(task.spec, task.target, launch_shape(task, shape));
  observer.space(shape, space);
  ShapeRecord record;
  record.shape = shape;
  record.excluded = space.excluded;
  for (const Tuning& tuning : space.decode)
    record.tunings.push_back(tuning.text());

  Compiles compiles(task, space.decode);
  // A CPU cannot time while it compiles.
  for (std::size_t i = 0; !codegen::is_cuda_target(task.target) && i < space.decode.size() && !stops.decode();
       ++i) {
    compiles.wait(i);
    observer.compiled(compiles.finished(), space.decode.size());
  }
  WorkerMeter meter(task, record.shape, space.decode, false, &compiles, &observer);
  record.bytes = meter.description().at("bytes");
  SearchOptions options = search_options(task, stops.decode);
  for (std::size_t i = 0; i < record.tunings.size(); ++i) {
    if (const auto found = known.find(record.tunings[i]); found != known.end())
      options.known[i] = found->second;
  }
  options.changed = [&](const std::vector<Trial>& trials, std::size_t candidate) {
    record.trials = trials;
    observer.trial(record, candidate, false);
  };
  SearchResult result = search(meter, space.decode.size(), options);
  record.trials = std::move(result.trials);
  record.best = result.best;
  record.complete = result.complete;
  record.passes = result.passes;
  tune_dense(task, record, stops.all, observer);
  record.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return record;
}

std::vector<std::vector<double>> time_tunings(const TuneTask& task, const runtime::TunedShape& shape,
                                              const std::vector<std::string>& tunings, bool dense,
                                              int rounds) {
  std::vector<Tuning> parsed;
  for (const std::string& tuning : tunings)
    parsed.push_back(Tuning::parse(tuning, task.spec, task.target));
  WorkerMeter meter(task, shape, parsed, dense, nullptr, nullptr);
  std::vector<std::size_t> all(parsed.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = i;
    if (const std::string why = meter.prepare(i); !why.empty())
      throw Error(ADAMAS_UNAVAILABLE, "tuning", tunings[i], "cannot be timed: " + why);
  }
  std::vector<std::vector<double>> us;
  for (const Passes& passes : meter.measure(all, rounds)) {
    if (!passes.failure.empty())
      throw Error(ADAMAS_UNAVAILABLE, "tune", task.spec.text(), "cannot be timed: " + passes.failure);
    us.push_back(passes.us);
  }
  return us;
}

}  // namespace adamas::tools
