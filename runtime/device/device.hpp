// Device: one small interface to whatever runs kernels. The CUDA driver and the CPU implement it; everything above is
// written once.
#pragma once

#include <adamas/adamas.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codegen/generator.hpp"
#include "runtime/compile/compiler.hpp"
#include "templates/args.h"

namespace adamas::runtime {

/// A host's own parallel-for, as adamas.h has it; without a function: the library's threads.
struct HostParallelFor {
  adamas_parallel_for_fn function = nullptr;
  void* user = nullptr;
};

/// Host engine's stream: a CUstream; ignored by the CPU.
using Stream = void*;

/// A loaded unit. Immutable; usable from any thread; unloaded when the last owner lets go, never implicitly.
class Module {
 public:
  virtual ~Module() = default;
  /// Enqueues one stage. Never compiles, loads, allocates or synchronises.
  /// @throws codegen::Error(ADAMAS_DEVICE_ERROR) if the driver refuses the launch.
  virtual void launch(codegen::Stage, const codegen::Grid&, const adamas_abi::Args&, Stream) const = 0;
};

/// Work recorded once and replayed: a CUDA graph; on the CPU the work itself.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Runs it `times` times back to back, after one run that is not measured, and waits.
  /// @return  microseconds that the device spent on each
  virtual std::vector<double> replay(int times) const = 0;
  /// Launches and copies of one run; 0 on the CPU, which does not count them.
  virtual std::size_t operations() const = 0;
};

/// A stream for tools and tests: hosts bring their own. Waits for its work before it goes.
class OwnStream {
 public:
  virtual ~OwnStream() = default;
  virtual Stream get() const = 0;
  /// Has `work` enqueue on the stream it is given, without running anything yet. What it uses must outlive the
  /// recording. @throws what `work` throws, or codegen::Error(ADAMAS_DEVICE_ERROR)
  virtual std::unique_ptr<Recording> record(const std::function<void(Stream)>& work) const = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string id() const = 0;    ///< "cpu", "cuda:0"
  virtual std::string name() const = 0;  ///< the maker's name
  virtual const codegen::Generator& generator() const = 0;
  /// CUDA: multiprocessors, which the schedule of a launch is chosen by; CPU: 0.
  virtual int processors() const { return 0; }
  virtual std::size_t alignment() const = 0;  ///< of every pointer and stride in bytes: 16, or 1 (the element)

  /// Targets this device can run, best first. All are searched in the cache; the first is compiled for on a miss.
  virtual std::vector<std::string> targets() const = 0;
  virtual std::shared_ptr<Compiler> compiler() const = 0;

  /// Loads a compiled unit and resolves its stages; forces the module load, so that a launch under capture only
  /// launches. `name` appears in error texts. Grids: the largest dynamic shared memory each stage may be given.
  /// @throws codegen::Error(ADAMAS_DEVICE_ERROR) when the binary is refused: the caller treats it as a cache miss.
  virtual std::shared_ptr<const Module> load(const std::string& name, std::span<const std::byte> binary,
                                             std::span<const codegen::Stage> stages) const = 0;

  /// Memory for tools and tests. copy and synchronize wait for the stream; clear only enqueues.
  virtual void* allocate(std::uint64_t bytes) const = 0;
  virtual void release(void* pointer) const noexcept = 0;
  virtual void copy_to_device(void* to, const void* from, std::uint64_t bytes, Stream) const = 0;
  virtual void copy_to_host(void* to, const void* from, std::uint64_t bytes, Stream) const = 0;
  virtual void clear(void* pointer, std::uint64_t bytes, Stream) const = 0;
  /// Enqueues a copy into host memory without waiting.
  virtual void copy_to_host_async(void* to, const void* from, std::uint64_t bytes, Stream) const = 0;
  /// Enqueues a copy between two places of this device's memory, which do not overlap.
  virtual void copy_on_device(void* to, const void* from, std::uint64_t bytes, Stream) const = 0;
  virtual void synchronize(Stream) const = 0;
  /// Whether work on the stream is being captured in a graph. The CPU captures nothing.
  virtual bool is_capturing(Stream) const { return false; }
  virtual std::unique_ptr<OwnStream> make_stream() const = 0;

  /// Runs `work` with this device's context current and the caller's restored afterwards is the implementation's own
  /// affair: every method above does it.
};

/// A kind of device. Adding one touches one folder and one line of the registry.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  ///< "cuda", "cpu"
  virtual int device_count() const = 0;
  /// Empty when devices can be opened, else what is missing and how to get it.
  virtual std::string unavailable() const = 0;
  /// @throws codegen::Error(ADAMAS_UNAVAILABLE). `threads`: CPU threads of a launch, 0 = one a core.
  virtual std::shared_ptr<Device> open(int ordinal, int threads, const HostParallelFor& host = {}) const = 0;
};

/// All backends, best first: "auto" takes the first that is available.
std::span<const Backend* const> backends();
const Backend& cuda_backend();
const Backend& cpu_backend();

/// Opens "auto", "cpu", "cuda" or "cuda:N". @throws codegen::Error naming the device and the way out.
std::shared_ptr<Device> open_device(const std::string& id, int threads, const HostParallelFor& host = {});

}  // namespace adamas::runtime
