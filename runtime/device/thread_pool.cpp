// Items of a grid on pthreadpool's threads, or the host's.
#include "runtime/device/thread_pool.hpp"

#include <pthreadpool.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/device/float_environment.hpp"

#if defined(__SANITIZE_THREAD__)
#define ADAMAS_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ADAMAS_THREAD_SANITIZER 1
#endif
#endif
#if ADAMAS_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace adamas::runtime {
namespace {

/// Pieces of work a thread gets on average: enough that threads which are done early can take over the
/// others' rest.
constexpr std::uint64_t kPiecesPerThread = 32;

struct Work {
  CpuEntry entry;
  const adamas_abi::Args* args;
  std::uint32_t x, y;  // extents
};

thread_local bool inside_item = false;

// The thread sanitizer does not see into the distribution's libpthreadpool: it has to be told that the
// caller's writes come before the items, and the items before what follows the launch.
#if ADAMAS_THREAD_SANITIZER
void hand_over(void* token) { __tsan_release(token); }
void take_over(void* token) { __tsan_acquire(token); }
#else
void hand_over(void*) {}
void take_over(void*) {}
#endif

/// Items first .. first + count - 1, x running fastest.
void run_items(void* context, std::size_t first, std::size_t count) {
  take_over(context);
  const Work& work = *static_cast<const Work*>(context);
  const DefaultFloatEnvironment environment;
  const bool was_inside = inside_item;
  inside_item = true;
  auto x = static_cast<std::uint32_t>(first % work.x);
  auto y = static_cast<std::uint32_t>(first / work.x % work.y);
  auto z = static_cast<std::uint32_t>(first / work.x / work.y);
  for (std::size_t i = 0; i < count; ++i) {
    work.entry(work.args, x, y, z);
    if (++x < work.x) continue;
    x = 0;
    if (++y < work.y) continue;
    y = 0;
    ++z;
  }
  inside_item = was_inside;
  hand_over(context);
}

std::uint64_t item_count(const codegen::Grid& grid) {
  std::uint64_t items = std::uint64_t{grid.x} * grid.y;
  if (__builtin_mul_overflow(items, std::uint64_t{grid.z}, &items))
    throw codegen::Error(ADAMAS_DEVICE_ERROR, "grid", fmt::format("{} x {} x {}", grid.x, grid.y, grid.z),
                         "must have fewer than 2^64 items", "split the call into smaller batches");
  return items;
}

/// Items in pieces, as a host's parallel-for runs them. It is not ours: what it does is counted.
class HostWork {
 public:
  HostWork(Work& work, std::uint64_t items, std::uint64_t piece)
      : work_(work), items_(items), piece_(piece), pieces_(items / piece + (items % piece != 0)) {}

  void run_on(const HostParallelFor& host) {
    host.function(host.user, pieces_, run_piece, this);
    const std::uint64_t calls = calls_.load(std::memory_order_relaxed);
    // The sum tells one piece that ran twice in another's place.
    if (calls == pieces_ && ended_.load(std::memory_order_acquire) == pieces_ * (pieces_ + 1) / 2) return;
    throw codegen::Error(ADAMAS_DEVICE_ERROR, "parallel_for",
                         fmt::format("{} calls of body for a count of {}", calls, pieces_),
                         "must call body once for every index below count, and return when all calls have",
                         "leave out parallel_for to have launches run on the library's own threads");
  }

 private:
  static void run_piece(void* self, std::size_t index) {
    auto& host = *static_cast<HostWork*>(self);
    host.calls_.fetch_add(1, std::memory_order_relaxed);
    if (index >= host.pieces_) return;
    const std::uint64_t first = index * host.piece_;
    run_items(&host.work_, first, std::min(host.piece_, host.items_ - first));
    host.ended_.fetch_add(index + 1, std::memory_order_release);
  }

  Work& work_;
  std::uint64_t items_, piece_, pieces_;
  std::atomic<std::uint64_t> calls_{0}, ended_{0};  // ended: the sum of index + 1
};

}  // namespace

ThreadPool::ThreadPool(int threads, const HostParallelFor& host)
    : threads_(threads), host_(host), owner_process_(::getpid()) {
  if (threads == 1 || host_.function != nullptr) return;
  pool_ = ::pthreadpool_create(static_cast<std::size_t>(threads));
  if (pool_ == nullptr)
    throw codegen::Error(ADAMAS_UNAVAILABLE, "threads", fmt::format("{}", threads), "cannot be started",
                         "ask for fewer threads, or raise the process limit (ulimit -u)");
}

ThreadPool::~ThreadPool() {
  // In a child after fork the threads do not exist, and waiting for their end would never return.
  if (pool_ != nullptr && ::getpid() == owner_process_) ::pthreadpool_destroy(pool_);
}

void ThreadPool::run(CpuEntry entry, const adamas_abi::Args& args, const codegen::Grid& grid) const {
  const std::uint64_t items = item_count(grid);
  if (items == 0) return;
  Work work{entry, &args, grid.x, grid.y};
  // The pool would wait for the very launch that this item belongs to.
  if (inside_item) return run_items(&work, 0, items);
  const std::uint64_t pieces = kPiecesPerThread * static_cast<std::uint64_t>(threads_);
  const std::uint64_t piece = std::max<std::uint64_t>(1, items / pieces);
  if (host_.function != nullptr) return HostWork(work, items, piece).run_on(host_);
  if (pool_ == nullptr) return run_items(&work, 0, items);
  hand_over(&work);
  ::pthreadpool_parallelize_1d_tile_1d(pool_, run_items, &work, items, piece, 0);
  take_over(&work);
}

}  // namespace adamas::runtime
