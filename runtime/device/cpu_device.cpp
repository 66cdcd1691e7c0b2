// The CPU device and its backend.
#include "runtime/device/cpu_device.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/compile/cpu_compiler.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/device/cpu_count.hpp"
#include "runtime/device/shared_object.hpp"
#include "runtime/device/thread_pool.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

constexpr int kMostThreads = 1024;
constexpr std::uint64_t kCacheLine = 64;  // and the widest vector
// Gathered rows lie far apart: on pages of 4 KiB each costs a walk of the page tables, and the hardware's
// prefetchers stop at the end of every page.
constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;

class CpuModule final : public Module {
 public:
  CpuModule(const std::string& name, std::span<const std::byte> binary,
            std::span<const codegen::Stage> stages, std::shared_ptr<const ThreadPool> pool)
      : name_(name), object_(name, binary), pool_(std::move(pool)) {
    for (const codegen::Stage stage : stages) {
      const std::string entry = codegen::entry_name(stage);
      void* const address = object_.symbol(entry);
      if (address == nullptr) throw Error(ADAMAS_DEVICE_ERROR, "kernel", name, "must export " + entry);
      entries_[static_cast<std::size_t>(stage)] = reinterpret_cast<CpuEntry>(address);
    }
  }

  void launch(codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args,
              Stream) const override {
    const CpuEntry entry = entries_[static_cast<std::size_t>(stage)];
    if (entry == nullptr)
      throw Error(ADAMAS_INTERNAL, "kernel", name_,
                  fmt::format("was loaded without stage {}", codegen::name(stage)));
    pool_->run(entry, args, grid);
  }

 private:
  std::string name_;
  SharedObject object_;
  std::shared_ptr<const ThreadPool> pool_;  // a module may outlive its device
  std::array<CpuEntry, codegen::kStages.size()> entries_{};
};

/// The maker's name of this CPU; on machines whose kernel does not tell (most of aarch64), the architecture.
std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const std::size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    if (value != line.npos) return line.substr(value);
  }
#if defined(__x86_64__)
  return "x86-64 CPU";
#else
  return "aarch64 CPU";
#endif
}

int checked_threads(int threads) {
  if (threads < 0 || threads > kMostThreads)
    throw Error(ADAMAS_INVALID_ARGUMENT, "threads", fmt::format("{}", threads),
                fmt::format("must lie in 0..{}", kMostThreads),
                "0 takes one for each CPU the process may use");
  return threads != 0 ? threads : std::min(usable_cpus(), kMostThreads);
}

void copy(void* to, const void* from, std::uint64_t bytes) {
  if (bytes != 0) std::memmove(to, from, bytes);
}

/// Launches run before they return: a recording is the work itself, under a clock.
class CpuRecording final : public Recording {
 public:
  explicit CpuRecording(std::function<void(Stream)> work) : work_(std::move(work)) {}

  std::vector<double> replay(int times) const override {
    using Clock = std::chrono::steady_clock;
    work_(nullptr);
    std::vector<double> microseconds;
    for (int i = 0; i < times; ++i) {
      const auto start = Clock::now();
      work_(nullptr);
      microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
    }
    return microseconds;
  }
  std::size_t operations() const override { return 0; }

 private:
  std::function<void(Stream)> work_;
};

class CpuStream final : public OwnStream {
 public:
  Stream get() const override { return nullptr; }
  std::unique_ptr<Recording> record(const std::function<void(Stream)>& work) const override {
    return std::make_unique<CpuRecording>(work);
  }
};

class CpuBackend final : public Backend {
 public:
  std::string name() const override { return "cpu"; }
  int device_count() const override { return 1; }
  std::string unavailable() const override { return {}; }
  std::shared_ptr<Device> open(int ordinal, int threads, const HostParallelFor& host) const override {
    if (ordinal != 0)
      throw Error(ADAMAS_UNAVAILABLE, "device", fmt::format("cpu:{}", ordinal), "does not exist",
                  "use the device cpu");
    return std::make_shared<CpuDevice>(threads, host);
  }
};

}  // namespace

CpuDevice::CpuDevice(int threads, const HostParallelFor& host)
    : name_(cpu_name()),
      targets_(runnable_cpu_targets()),
      compiler_(make_cpu_compiler()),
      pool_(std::make_shared<ThreadPool>(checked_threads(threads), host)) {}

const codegen::Generator& CpuDevice::generator() const { return codegen::cpu_generator(); }

std::shared_ptr<const Module> CpuDevice::load(const std::string& name, std::span<const std::byte> binary,
                                              std::span<const codegen::Stage> stages) const {
  return std::make_shared<CpuModule>(name, binary, stages, pool_);
}

void* CpuDevice::allocate(std::uint64_t bytes) const {
  const std::uint64_t wanted = std::max<std::uint64_t>(bytes, 1);
  const std::uint64_t alignment = wanted >= kHugePage ? kHugePage : kCacheLine;
  const std::uint64_t whole = (wanted + alignment - 1) / alignment * alignment;
  void* const memory = wanted > PTRDIFF_MAX ? nullptr : std::aligned_alloc(alignment, whole);
  if (memory == nullptr)
    throw Error(ADAMAS_OUT_OF_MEMORY, "memory", fmt::format("{} bytes", bytes), "cannot be allocated",
                "free some, or ask for a smaller capacity");
  if (alignment == kHugePage) ::madvise(memory, whole, MADV_HUGEPAGE);  // a kernel that has none says no
  return memory;
}

void CpuDevice::release(void* pointer) const noexcept { std::free(pointer); }

void CpuDevice::copy_to_device(void* to, const void* from, std::uint64_t bytes, Stream) const {
  copy(to, from, bytes);
}

void CpuDevice::copy_to_host(void* to, const void* from, std::uint64_t bytes, Stream) const {
  copy(to, from, bytes);
}

void CpuDevice::copy_to_host_async(void* to, const void* from, std::uint64_t bytes, Stream) const {
  copy(to, from, bytes);
}

void CpuDevice::clear(void* pointer, std::uint64_t bytes, Stream) const {
  if (bytes != 0) std::memset(pointer, 0, bytes);
}

void CpuDevice::copy_on_device(void* to, const void* from, std::uint64_t bytes, Stream) const {
  copy(to, from, bytes);
}

std::unique_ptr<OwnStream> CpuDevice::make_stream() const { return std::make_unique<CpuStream>(); }

int CpuDevice::threads() const { return pool_->threads(); }

const Backend& cpu_backend() {
  static const CpuBackend backend;
  return backend;
}

}  // namespace adamas::runtime
