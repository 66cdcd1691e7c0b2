// Recordings and copies of the CPU device: what is recorded runs when it is replayed, and only then.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "runtime/device/cpu_device.hpp"

using namespace adamas::runtime;

TEST_CASE("cpu device: a recording replays its work as often as asked, each run timed") {
  const CpuDevice device(1);
  const auto stream = device.make_stream();
  int runs = 0;
  const auto recording = stream->record([&](Stream) { ++runs; });
  CHECK(runs == 0);
  const std::vector<double> microseconds = recording->replay(4);
  CHECK(runs == 5);  // one run more than those timed
  CHECK(microseconds.size() == 4);
  CHECK(std::all_of(microseconds.begin(), microseconds.end(), [](double us) { return us >= 0; }));
}

TEST_CASE("cpu device: copies from one place of its memory to another") {
  const CpuDevice device(1);
  std::array<int, 4> from{1, 2, 3, 4}, to{};
  device.copy_on_device(to.data() + 1, from.data() + 2, 2 * sizeof(int), nullptr);
  device.copy_on_device(nullptr, nullptr, 0, nullptr);
  CHECK(to == std::array<int, 4>{0, 3, 4, 0});
}
