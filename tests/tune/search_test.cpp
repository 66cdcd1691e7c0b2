// The search of `adamas tune` against a simulated device whose best candidate is known: noise, drift,
// failures, interruption. Everything is drawn from a seed.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "tests/oracle/random_data.hpp"
#include "tools/tune/search.hpp"

namespace {

using namespace adamas;
using tools::Passes;
using tools::Trial;

/// A device whose clock drifts and jitters. Candidates beyond `us` do not exist.
class SimulatedDevice : public tools::Meter {
 public:
  explicit SimulatedDevice(std::vector<double> us, std::uint64_t seed = 1)
      : us_(std::move(us)), random_(seed) {}

  double noise = 0.02, drift = 0.5;  ///< jitter of a pass; what the clock loses over the whole search
  std::set<std::size_t> does_not_compile, crashes;
  int timed = 0;

  std::string prepare(std::size_t candidate) override {
    return does_not_compile.contains(candidate) ? "does not compile" : "";
  }

  std::vector<Passes> measure(std::span<const std::size_t> candidates, int rounds) override {
    std::vector<Passes> passes(candidates.size());
    // A crash takes the whole measurement with it.
    const auto culprit = std::ranges::find_if(candidates, [&](std::size_t i) { return crashes.contains(i); });
    if (culprit != candidates.end()) {
      for (Passes& p : passes)
        p.failure = "crashed";
      return passes;
    }
    for (int round = 0; round < rounds; ++round) {
      for (std::size_t i = 0; i < candidates.size(); ++i) {
        const double slower = 1 + drift * timed++ / 2000;
        const double jitter = 1 + noise * (static_cast<double>(random_.integer(0, 2000)) / 1000 - 1);
        passes[i].us.push_back(us_.at(candidates[i]) * slower * jitter);
      }
    }
    return passes;
  }

 private:
  std::vector<double> us_;
  oracle::Random random_;
};

/// 40 candidates between 8 and 20 us, the default at 12.
std::vector<double> many_candidates() {
  std::vector<double> us{12};
  for (int i = 1; i < 40; ++i)
    us.push_back(8 + 12.0 * ((i * 17) % 40) / 40);
  return us;
}

std::size_t fastest(const std::vector<double>& us) {
  return static_cast<std::size_t>(std::ranges::min_element(us) - us.begin());
}

TEST_CASE("the search finds the best candidate through noise and drift, in few passes") {
  const std::vector<double> us = many_candidates();
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    SimulatedDevice device(us, seed);
    const auto result = search(device, us.size(), {});
    CHECK(result.complete);
    // Two that differ by less than the noise may change places.
    CHECK(us[result.best] <= us[fastest(us)] * 1.02);
    CHECK(device.timed <= 900);  // exhaustively, 48 rounds of all: 3840
    CHECK(result.trials[result.best].state == Trial::State::running);
  }
}

TEST_CASE("the default stays unless another is clearly faster") {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    SimulatedDevice device({10, 9.98, 10.02, 10.01, 9.99, 12, 11}, seed);
    CHECK(search(device, 7, {}).best == 0);
  }
  SimulatedDevice device({10, 9.5}, 3);
  CHECK(search(device, 2, {}).best == 1);
}

TEST_CASE("candidates that fail to compile or crash are survived, and the others still compared") {
  const std::vector<double> us = many_candidates();
  SimulatedDevice device(us);
  const std::size_t best = fastest(us);
  device.does_not_compile = {3, 5};
  device.crashes = {best, 7};
  const auto result = search(device, us.size(), {});
  for (const std::size_t failed : {std::size_t{3}, std::size_t{5}, best, std::size_t{7}}) {
    CAPTURE(failed);
    CHECK(result.trials[failed].state == Trial::State::failed);
    CHECK_FALSE(result.trials[failed].why.empty());
  }
  std::vector<double> rest = us;
  for (const std::size_t failed : {std::size_t{3}, std::size_t{5}, best, std::size_t{7}})
    rest[failed] = 1e9;
  CHECK(us[result.best] <= rest[fastest(rest)] * 1.02);
}

TEST_CASE("one that crashes only later takes no other with it") {
  class LateCrash : public SimulatedDevice {
   public:
    using SimulatedDevice::SimulatedDevice;
    std::vector<Passes> measure(std::span<const std::size_t> candidates, int rounds) override {
      if (rounds > 3) crashes = {1};
      return SimulatedDevice::measure(candidates, rounds);
    }
  };
  LateCrash device({10, 5, 6, 7, 8});
  const auto result = search(device, 5, {});
  CHECK(result.trials[1].state == Trial::State::failed);
  CHECK(result.best == 2);
}

TEST_CASE("a search without its default is none") {
  SimulatedDevice device({10, 5});
  device.does_not_compile = {0};
  CHECK_THROWS_WITH_AS(search(device, 2, {}), doctest::Contains("default"), codegen::Error);
  SimulatedDevice crashing({10, 5});
  crashing.crashes = {0};
  CHECK_THROWS_AS(search(crashing, 2, {}), codegen::Error);
}

TEST_CASE("an interrupted search keeps what it found, and goes on from there") {
  const std::vector<double> us = many_candidates();
  SimulatedDevice device(us);
  tools::SearchOptions options;
  int looked_at = 0;
  options.changed = [&](const std::vector<Trial>&, std::size_t) { ++looked_at; };
  options.stop = [&] { return looked_at >= 20; };
  const auto half = search(device, us.size(), options);
  CHECK_FALSE(half.complete);
  CHECK(us[half.best] < us[0]);
  CHECK(half.trials.back().state == Trial::State::waiting);

  tools::SearchOptions resumed;
  for (std::size_t i = 0; i < half.trials.size(); ++i) {
    if (half.trials[i].passes > 0 || half.trials[i].state == Trial::State::failed)
      resumed.known[i] = half.trials[i];
  }
  SimulatedDevice again(us, 2), fresh(us, 2);
  const auto result = search(again, us.size(), resumed);
  CHECK(result.complete);
  CHECK(us[result.best] <= us[fastest(us)] * 1.02);
  CHECK(result.passes < search(fresh, us.size(), {}).passes);
}

TEST_CASE("a search of the default alone ends") {
  SimulatedDevice device({10});
  const auto result = search(device, 1, {});
  CHECK(result.best == 0);
  CHECK(result.complete);
}

}  // namespace
