// What enqueueing costs the host: a call of the library, next to a launch of an empty kernel.
#pragma once

#include <functional>

#include "runtime/device/device.hpp"

namespace adamas::tools {

/// Median nanoseconds of one `call`, which enqueues on `stream`. The stream is waited for every few calls, so
/// that none finds the queue full.
double call_nanoseconds(const runtime::Device& device, runtime::Stream stream,
                        const std::function<void()>& call);

/// The same for a launch of a kernel that does nothing, with the argument block that all kernels have.
/// Compiles it. CUDA only. @throws codegen::Error when the compiler is unavailable
double launch_nanoseconds(const runtime::Device& device, runtime::Stream stream);

}  // namespace adamas::tools
