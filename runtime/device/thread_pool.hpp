// ThreadPool: calls an entry point for every item of a grid, in any order, on several threads: pthreadpool's,
// or the host's where it brings a parallel-for.
#pragma once

#include "codegen/generator.hpp"
#include "runtime/device/device.hpp"
#include "templates/args.h"

struct pthreadpool;

namespace adamas::runtime {

/// What every stage of a CPU unit exports.
using CpuEntry = void (*)(const adamas_abi::Args*, unsigned x, unsigned y, unsigned z);

class ThreadPool {
 public:
  /// @param threads  the calling thread of a launch included; >= 1
  /// @param host     runs the items in their place: no thread is started, `threads` is how many it likely has
  /// @throws codegen::Error(ADAMAS_UNAVAILABLE) if they cannot be started
  explicit ThreadPool(int threads, const HostParallelFor& host = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Returns when every item has run once, each in the default floating-point environment. Threads that call
  /// at the same time take turns, or meet in the host's function; a call from inside an item runs on that
  /// item's thread alone.
  /// @throws codegen::Error(ADAMAS_DEVICE_ERROR) for a grid with more than 2^64 items, and when the host's
  /// function returned without having run every piece once
  void run(CpuEntry, const adamas_abi::Args&, const codegen::Grid&) const;

  int threads() const { return threads_; }

 private:
  int threads_;
  HostParallelFor host_;
  int owner_process_;
  pthreadpool* pool_ = nullptr;  // none for a single thread, and none beside the host's
};

}  // namespace adamas::runtime
