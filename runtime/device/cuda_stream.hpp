// A CUDA stream of one's own, whose work can be recorded as a graph and replayed between events.
#pragma once

#include <memory>

#include "runtime/device/cuda_context.hpp"
#include "runtime/device/device.hpp"

namespace adamas::runtime {

/// @throws codegen::Error(ADAMAS_DEVICE_ERROR) when the driver refuses a stream
std::unique_ptr<OwnStream> make_cuda_stream(std::shared_ptr<const PrimaryContext>);

}  // namespace adamas::runtime
