// DeviceMemory: what adamas_alloc hands out, from the device or from the host's own allocator.
#pragma once

#include <adamas/adamas.h>

#include <cstdint>

#include "runtime/device/device.hpp"

namespace adamas::runtime {

/// A host's callbacks, as adamas_context_options has them: both or none.
struct HostAllocator {
  adamas_allocate_fn allocate = nullptr;
  adamas_release_fn release = nullptr;
  void* user = nullptr;
};

class DeviceMemory {
 public:
  /// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) for one callback without the other
  DeviceMemory(const Device& device, const HostAllocator& allocator);

  /// @throws codegen::Error  ADAMAS_OUT_OF_MEMORY; ADAMAS_INVALID_ARGUMENT when the host's memory is
  /// misaligned
  void* allocate(std::uint64_t bytes) const;
  void release(void* pointer) const;

 private:
  const Device& device_;
  HostAllocator allocator_;
};

}  // namespace adamas::runtime
