// Background: see background.hpp.
#include "runtime/dispatch/background.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

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

BackgroundCompiler::BackgroundCompiler(Cache& cache)
    : owner_process_(::getpid()), shared_(new Shared{cache}) {}

BackgroundCompiler::~BackgroundCompiler() {
  if (::getpid() != owner_process_) {
    static_cast<void>(shared_.release());
    return;
  }
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->ending = true;
  }
  shared_->changed.notify_one();
  if (shared_->thread.joinable()) shared_->thread.join();
}

std::shared_ptr<const BackgroundJob> BackgroundCompiler::add(std::vector<CacheKey> keys,
                                                             std::shared_ptr<Compiler> compiler) {
  auto job = std::make_shared<BackgroundJob>(std::move(keys), std::move(compiler));
  const std::lock_guard lock(shared_->mutex);
  shared_->jobs.push_back(job);
  if (!shared_->thread.joinable()) {
    // The host's signals are for the host's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    shared_->thread = std::thread([&shared = *shared_] { work(shared); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  shared_->changed.notify_one();
  return job;
}

void BackgroundCompiler::work(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  for (;;) {
    shared.changed.wait(lock, [&] { return shared.ending || !shared.jobs.empty(); });
    if (shared.ending) return;
    const std::shared_ptr<BackgroundJob> job = std::move(shared.jobs.front());
    shared.jobs.pop_front();
    lock.unlock();
    job->run(shared.cache);
    lock.lock();
  }
}

}  // namespace adamas::runtime
