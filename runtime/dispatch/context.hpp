// Context: one device, one kernel cache, one log. Everything made from it keeps it alive.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "runtime/cache/cache.hpp"
#include "runtime/device/device.hpp"
#include "runtime/dispatch/background.hpp"
#include "runtime/dispatch/memory.hpp"
#include "runtime/dispatch/policy.hpp"
#include "runtime/dispatch/tuning_file.hpp"

namespace adamas::runtime {

struct ContextConfig {
  std::string device = "auto";  ///< "auto", "cpu", "cuda:N"
  CacheOptions cache = {};
  int threads = 0;
  HostParallelFor parallel_for = {};
  HostAllocator allocator = {};
  CompilePolicy policy = CompilePolicy::allow;
  /// Tuning files, ':' between them, later ones win; nothing: $ADAMAS_TUNING, else the cache folder's tuning.json.
  std::optional<std::string> tuning = std::nullopt;
};

class Context {
 public:
  explicit Context(const ContextConfig& config);

  const Device& device() const { return *device_; }
  const DeviceMemory& memory() const { return memory_; }
  Cache& cache() const { return *cache_; }
  CompilePolicy policy() const { return policy_; }
  const TuningFile& tunings() const { return tunings_; }
  BackgroundCompiler& background() const { return *background_; }
  /// Never 0; tells contexts apart even when an address is reused.
  std::uint64_t id() const { return id_; }
  /// @throws codegen::Error(ADAMAS_INVALID_HANDLE) in a child process: threads and driver state did not
  /// survive fork.
  void check_process() const;

 private:
  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  std::unique_ptr<Cache> cache_;
  std::unique_ptr<BackgroundCompiler> background_;  // ends before the cache it fills
  CompilePolicy policy_;
  TuningFile tunings_;
  std::uint64_t id_;
  pid_t process_;
};

}  // namespace adamas::runtime
