// Measured read bandwidth of a device's memory: the roofline that bench compares with.
#pragma once

#include "runtime/device/device.hpp"

namespace adamas::tools {

/// What must be read between two uses of some data, so that a device's caches hold nothing of it: above 4
/// times the L2 of an H100, 4 times the last level of a CPU, which may be hundreds of MB.
double cold_bytes(const runtime::Device& device);

/// Gigabytes a second, the best of a few passes over a buffer far larger than the caches. Compiles two small
/// kernels' worth of source with the device's own compiler. @throws codegen::Error when that is unavailable.
double measure_bandwidth(const runtime::Device& device);

}  // namespace adamas::tools
