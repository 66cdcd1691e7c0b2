// Launches on the host's own threads (adamas_context_options.parallel_for): the bits of the library's own,
// whatever the host does with order and threads; no thread of ours; and a host that breaks the contract is
// told.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include <adamas/adamas.hpp>

#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

/// A host with threads of its own, which take indexes in turn, and never on the calling thread.
struct Host {
  int threads = 1;
  bool backwards = false;
  int rounding = FE_TONEAREST;  ///< of its threads
  std::atomic<int> launches{0}, touched{0};

  template <class Each>
  void operator()(std::size_t count, const Each& each) {
    ++launches;
    std::atomic<std::size_t> next{0};
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) {
      workers.emplace_back([&] {
        std::fesetround(rounding);
        for (std::size_t at = next++; at < count; at = next++)
          each(backwards ? count - 1 - at : at);
        if (std::fegetround() != rounding) ++touched;
      });
    }
    for (std::thread& worker : workers)
      worker.join();
  }
};

ContextOptions options_for(Host& host) {
  ContextOptions options{.device = "cpu", .threads = host.threads};
  use_parallel_for(options, host);
  return options;
}

/// Codes, lists and outputs of every operation.
struct Answers {
  std::vector<unsigned char> codes;
  Selected selected;
  Attended decoded, attended, dense;
};

Answers answers(const Context& context, const SmallShape& shape) {
  const SmallProblem problem(context, shape);
  problem.encode();
  Answers all;
  all.codes = problem.codes.read<unsigned char>();
  all.selected = problem.select();
  all.attended = problem.attend_with(&Plan::attend, problem.call());
  all.decoded = problem.decode();
  all.dense = problem.dense();
  return all;
}

bool same(const Attended& a, const Attended& b) {
  return a.out == b.out && a.lse == b.lse && a.counters.tokens_attended == b.counters.tokens_attended;
}

std::size_t threads_of_this_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

const SmallShape kShape{
    .spec = "head_dim=64 group=4 budget=200", .sequences = {{1, 1500}, {2, 3}, {3, 640}}, .dense_below = 30};

}  // namespace

TEST_CASE("cpu: launches on the host's threads have the bits of the library's own") {
  for (const char* spec :
       {"head_dim=64 group=4 budget=200", "head_dim=64 group=2 budget=64 estimator=manhattan"}) {
    INFO(spec);
    SmallShape shape = kShape;
    shape.spec = spec;
    const Answers want = answers(Context(ContextOptions{.device = "cpu", .threads = 2}), shape);
    for (int threads = 1; threads <= 4; ++threads) {
      for (const bool backwards : {false, true}) {
        INFO(threads, " host threads, ", backwards ? "from the last index" : "from the first");
        Host host{.threads = threads, .backwards = backwards};
        const Answers got = answers(Context(options_for(host)), shape);
        CHECK(host.launches > 8);  // every stage of every operation
        CHECK(got.codes == want.codes);
        CHECK(got.selected.positions == want.selected.positions);
        CHECK(got.selected.counts == want.selected.counts);
        CHECK(same(got.attended, want.attended));
        CHECK(same(got.decoded, want.decoded));
        CHECK(same(got.dense, want.dense));
      }
    }
  }
}

TEST_CASE("cpu: the arithmetic of the host's threads does not reach the kernels, nor theirs the host") {
  const Answers want = answers(Context("cpu"), kShape);
  Host host{.threads = 2, .rounding = FE_UPWARD};
  const Answers got = answers(Context(options_for(host)), kShape);
  CHECK(got.codes == want.codes);
  CHECK(same(got.decoded, want.decoded));
  CHECK(host.touched == 0);
}

TEST_CASE("cpu: with a parallel-for the library starts no thread for its launches") {
  struct Plain {  // a host that has one thread
    static void run(void* user, std::size_t count, adamas_parallel_body body, void* arg) {
      for (std::size_t i = 0; i < count; ++i)
        body(arg, i);
      *static_cast<std::size_t*>(user) =
          std::max(*static_cast<std::size_t*>(user), threads_of_this_process());
    }
  };
  const std::size_t before = threads_of_this_process();
  std::size_t most = 0;
  const Context context(
      ContextOptions{.device = "cpu", .threads = 4, .parallel_for = Plain::run, .parallel_for_user = &most});
  CHECK(threads_of_this_process() == before);
  answers(context, kShape);
  CHECK(most == before);
  // The counting tells: a context with threads of its own has them.
  const Context own(ContextOptions{.device = "cpu", .threads = 4});
  CHECK(threads_of_this_process() == before + 3);
}

TEST_CASE("cpu: several threads launch through one parallel-for") {
  Host host{.threads = 2};
  const Context context(options_for(host));
  const Answers want = answers(context, kShape);
  std::atomic<int> wrong{0};
  std::vector<std::thread> launchers;
  for (int i = 0; i < 3; ++i) {
    launchers.emplace_back([&] {
      const Answers got = answers(context, kShape);
      wrong += !same(got.decoded, want.decoded) || !same(got.dense, want.dense);
    });
  }
  for (std::thread& launcher : launchers)
    launcher.join();
  CHECK(wrong == 0);
}

TEST_CASE("cpu: a parallel-for that breaks its contract is an error of the launch") {
  enum class Fault { none, nothing, last_missing, twice, twice_for_another, beyond };
  struct Broken {
    Fault fault = Fault::none;
    static void run(void* user, std::size_t count, adamas_parallel_body body, void* arg) {
      const Fault fault = static_cast<const Broken*>(user)->fault;
      if (fault == Fault::nothing) return;
      for (std::size_t i = 0; i + (fault == Fault::last_missing) < count; ++i)
        body(arg, fault == Fault::twice_for_another && i + 1 == count ? 0 : i);
      if (fault == Fault::twice) body(arg, 0);
      if (fault == Fault::beyond) body(arg, count);
    }
  } broken;
  const Context context(
      ContextOptions{.device = "cpu", .parallel_for = Broken::run, .parallel_for_user = &broken});
  const SmallProblem problem(context, kShape);
  problem.encode();
  for (const Fault fault :
       {Fault::nothing, Fault::last_missing, Fault::twice, Fault::twice_for_another, Fault::beyond}) {
    CAPTURE(static_cast<int>(fault));
    broken.fault = fault;
    const Refusal refusal = refusal_of([&] { problem.plan.decode(problem.call()); });
    CHECK(refusal.status == ADAMAS_DEVICE_ERROR);
    CHECK(refusal.field == "parallel_for");
    CHECK_FALSE(refusal.hint.empty());
    broken.fault = Fault::none;
    CHECK_NOTHROW(problem.decode());  // the next one is whole
  }
}

}  // namespace adamas::tests
