// The CPU as a device: a stage is a parallel-for over its grid, on a pool of threads that the device owns or
// on the host's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/device/device.hpp"

namespace adamas::runtime {

/// Threads that run the items of one launch at a time. Launches from several threads take turns.
class ThreadPool;

class CpuDevice final : public Device {
 public:
  /// @param threads  of a launch, the calling one included; 0 = one for each CPU this process may use
  /// @param host     runs the items in place of threads of the device's own
  /// @throws codegen::Error  ADAMAS_INVALID_ARGUMENT: threads out of range; ADAMAS_UNAVAILABLE: they cannot
  /// be started
  explicit CpuDevice(int threads, const HostParallelFor& host = {});

  std::string id() const override { return "cpu"; }
  std::string name() const override { return name_; }
  const codegen::Generator& generator() const override;
  std::size_t alignment() const override { return 1; }
  std::vector<std::string> targets() const override { return targets_; }
  std::shared_ptr<Compiler> compiler() const override { return compiler_; }

  std::shared_ptr<const Module> load(const std::string& name, std::span<const std::byte> binary,
                                     std::span<const codegen::Stage> stages) const override;

  void* allocate(std::uint64_t bytes) const override;
  void release(void* pointer) const noexcept override;
  // Launches run before they return, so there is never anything to wait for.
  void copy_to_device(void* to, const void* from, std::uint64_t bytes, Stream) const override;
  void copy_to_host(void* to, const void* from, std::uint64_t bytes, Stream) const override;
  void clear(void* pointer, std::uint64_t bytes, Stream) const override;
  void copy_to_host_async(void* to, const void* from, std::uint64_t bytes, Stream) const override;
  void copy_on_device(void* to, const void* from, std::uint64_t bytes, Stream) const override;
  void synchronize(Stream) const override {}
  std::unique_ptr<OwnStream> make_stream() const override;

  int threads() const;

 private:
  std::string name_;
  std::vector<std::string> targets_;
  std::shared_ptr<Compiler> compiler_;
  std::shared_ptr<ThreadPool> pool_;
};

}  // namespace adamas::runtime
