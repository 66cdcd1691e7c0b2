// Background: see background.hpp.
#include "runtime/dispatch/background.hpp"

#include <pthread.h>
#include <signal.h>

#include <utility>

#include "runtime/dispatch/units.hpp"

namespace adamas::runtime {

BackgroundJob::State BackgroundJob::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void BackgroundJob::rethrow() const {
  const std::lock_guard lock(mutex_);
  std::rethrow_exception(error_);
}

void BackgroundJob::run(Cache& cache) {
  State end = State::ready;
  std::exception_ptr error;
  try {
    for (const CacheKey& key : keys_)
      cache.get({key}, [&](const CacheKey& missing) { return compile_unit(*compiler_, missing); });
  } catch (...) {
    end = State::failed;
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  state_ = end;
  error_ = error;
}

BackgroundCompiler::~BackgroundCompiler() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const BackgroundJob> BackgroundCompiler::add(std::vector<CacheKey> keys,
                                                             std::shared_ptr<Compiler> compiler) {
  auto job = std::make_shared<BackgroundJob>(std::move(keys), std::move(compiler));
  const std::lock_guard lock(mutex_);
  jobs_.push_back(job);
  if (!thread_.joinable()) {
    // The host's signals are for the host's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] { work(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  changed_.notify_one();
  return job;
}

void BackgroundCompiler::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    const std::shared_ptr<BackgroundJob> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job->run(cache_);
    lock.lock();
  }
}

}  // namespace adamas::runtime
