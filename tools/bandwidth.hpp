// Measured read bandwidth of a device's memory: the roofline that bench compares with.
#pragma once

#include "runtime/device/device.hpp"

namespace adamas::tools {

/// Gigabytes a second, the best of a few passes over a buffer far larger than the caches. Compiles two small
/// kernels' worth of source with the device's own compiler. @throws codegen::Error when that is unavailable.
double measure_bandwidth(const runtime::Device& device);

}  // namespace adamas::tools
