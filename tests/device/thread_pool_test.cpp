// Which threads run the items of a launch.
#include "runtime/device/thread_pool.hpp"

#include <doctest/doctest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>
#include <set>
#include <string>

namespace adamas::runtime {
namespace {

using Threads = std::set<std::string>;

Threads threads_of_this_process() {
  Threads threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task"))
    threads.insert(task.path().filename());
  return threads;
}

/// Those of `all` that are not in `known`. (Threads that have ended stay listed for a moment.)
Threads without(Threads all, const Threads& known) {
  std::erase_if(all, [&](const std::string& thread) { return known.contains(thread); });
  return all;
}

std::mutex seen_mutex;
Threads seen;  // by the items

void note_thread(const adamas_abi::Args*, unsigned, unsigned, unsigned) {
  const std::lock_guard lock(seen_mutex);
  seen.insert(std::to_string(syscall(SYS_gettid)));
}

}  // namespace

TEST_CASE("launches run on threads that were there before, and start none") {
  for (const int threads : {1, 2, 4}) {
    CAPTURE(threads);
    const Threads others = threads_of_this_process();
    const ThreadPool pool(threads);
    const Threads before = threads_of_this_process();
    CHECK(without(before, others).size() == static_cast<std::size_t>(threads) - 1);
    seen.clear();
    for (int launch = 0; launch < 50; ++launch)
      pool.run(note_thread, {}, {.x = 50, .y = 3, .z = 2});
    CHECK(!seen.empty());
    CHECK(without(seen, before).empty());
    CHECK(without(threads_of_this_process(), before).empty());
  }
}

}  // namespace adamas::runtime
