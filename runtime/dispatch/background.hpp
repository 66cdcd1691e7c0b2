// Background: a thread of a context that compiles what dense kernels wait for, and does nothing else: what it
// makes goes to the cache, where the host's refresh finds it.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "runtime/compile/compiler.hpp"

namespace adamas::runtime {

/// The units that one kernel waits for.
class BackgroundJob {
 public:
  enum class State { compiling, ready, failed };

  BackgroundJob(std::vector<CacheKey> keys, std::shared_ptr<Compiler> compiler)
      : keys_(std::move(keys)), compiler_(std::move(compiler)) {}

  State state() const;
  /// Of a failed job. @throws what the compiler threw
  [[noreturn]] void rethrow() const;

 private:
  friend class BackgroundCompiler;
  void run(Cache& cache);

  const std::vector<CacheKey> keys_;
  const std::shared_ptr<Compiler> compiler_;
  mutable std::mutex mutex_;  // guards what follows
  State state_ = State::compiling;
  std::exception_ptr error_;
};

class BackgroundCompiler {
 public:
  /// The cache must outlive it. The thread starts with the first job.
  explicit BackgroundCompiler(Cache& cache);
  /// Drops jobs that have not begun; waits for the unit that is being compiled.
  ~BackgroundCompiler();
  BackgroundCompiler(const BackgroundCompiler&) = delete;
  BackgroundCompiler& operator=(const BackgroundCompiler&) = delete;

  std::shared_ptr<const BackgroundJob> add(std::vector<CacheKey> keys, std::shared_ptr<Compiler> compiler);

 private:
  /// What the thread shares with the rest. In a child after fork the thread does not exist, its locks stay as they
  /// were, and waiting for it would never end: there this is left alone.
  struct Shared {
    Cache& cache;
    std::mutex mutex = {};  // guards what follows
    std::condition_variable changed = {};
    std::deque<std::shared_ptr<BackgroundJob>> jobs = {};
    bool ending = false;
    std::thread thread = {};
  };
  static void work(Shared& shared);

  const pid_t owner_process_;
  std::unique_ptr<Shared> shared_;
};

}  // namespace adamas::runtime
