// An NVIDIA GPU as a Device: the host's primary context, kernels from cubins, launches on the host's stream.
#pragma once

#include <string>
#include <vector>

#include "runtime/device/device.hpp"

namespace adamas::runtime {

/// Oldest compute capability that kernels are generated for: 8.0 (Ampere).
inline constexpr int kOldestCudaMajor = 8;

/// Targets that a GPU of compute capability `major`.`minor` runs, best first: its own architecture with the
/// features only that one has (sm_90a), plain (sm_90), then the older ones of the same major version.
std::vector<std::string> cuda_targets(int major, int minor);

}  // namespace adamas::runtime
