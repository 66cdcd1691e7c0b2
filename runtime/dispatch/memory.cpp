// DeviceMemory: see memory.hpp.
#include "runtime/dispatch/memory.hpp"

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

constexpr std::uint64_t kCpuAlignment = 64;    // a cache line, and the widest vector
constexpr std::uint64_t kCudaAlignment = 256;  // the driver's own

}  // namespace

DeviceMemory::DeviceMemory(const Device& device, const HostAllocator& allocator)
    : device_(device), allocator_(allocator) {
  if ((allocator.allocate == nullptr) == (allocator.release == nullptr)) return;
  throw Error(ADAMAS_INVALID_ARGUMENT, allocator.allocate == nullptr ? "options.allocate" : "options.release",
              "null", "must be given with the other: memory goes back to where it came from",
              "give both, or neither");
}

void* DeviceMemory::allocate(std::uint64_t bytes) const {
  if (allocator_.allocate == nullptr) return device_.allocate(bytes);
  const std::uint64_t alignment = device_.alignment() > 1 ? kCudaAlignment : kCpuAlignment;
  void* memory = nullptr;
  try {
    memory = allocator_.allocate(allocator_.user, bytes, alignment);
  } catch (...) {
    throw Error(ADAMAS_OUT_OF_MEMORY, "options.allocate", fmt::format("{} bytes", bytes),
                "threw an exception", "have it return null when there is no memory");
  }
  if (memory == nullptr) {
    throw Error(ADAMAS_OUT_OF_MEMORY, "options.allocate", fmt::format("{} bytes", bytes), "returned null",
                "free some, or ask for a smaller capacity");
  }
  if (reinterpret_cast<std::uintptr_t>(memory) % alignment != 0) {
    allocator_.release(allocator_.user, memory);
    throw Error(ADAMAS_INVALID_ARGUMENT, "options.allocate", fmt::format("{}", memory),
                fmt::format("must return memory aligned to {} bytes", alignment));
  }
  return memory;
}

void DeviceMemory::release(void* pointer) const {
  if (allocator_.release == nullptr) {
    device_.release(pointer);
  } else if (pointer != nullptr) {
    allocator_.release(allocator_.user, pointer);
  }
}

}  // namespace adamas::runtime
