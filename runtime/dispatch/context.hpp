// Context: one device, one kernel cache, one log. Everything made from it keeps it alive.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "runtime/cache/cache.hpp"
#include "runtime/device/device.hpp"

namespace adamas::runtime {

class Context {
 public:
  /// @param device     "auto", "cpu", "cuda:N"
  /// @param cache_dir  none = the default folder, "" = memory only
  Context(const std::string& device, std::optional<std::string> cache_dir, int threads, LogFn log);

  const Device& device() const { return *device_; }
  Cache& cache() const { return *cache_; }
  /// Never 0; tells contexts apart even when an address is reused.
  std::uint64_t id() const { return id_; }
  /// @throws codegen::Error(ADAMAS_INVALID_HANDLE) in a child process: threads and driver state did not
  /// survive fork.
  void check_process() const;

 private:
  std::shared_ptr<Device> device_;
  std::unique_ptr<Cache> cache_;
  std::uint64_t id_;
  pid_t process_;
};

}  // namespace adamas::runtime
