// Targets: names of what code is generated and compiled for. "sm_90a" (CUDA), "x86-64-v3" (CPU level), or the full
// text of one CPU, "x86-64:znver3:+avx2,+fma,...".
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace adamas::codegen {

bool is_cuda_target(std::string_view target);

/// @throws Error(ADAMAS_INVALID_SPEC, "target") for a name that is neither, with the known names in the hint.
/// "host" is resolved by the runtime before it gets here.
void check_target(std::string_view target);

/// Names a user may type, for help texts and errors.
const std::vector<std::string>& known_targets();

/// sm_90a -> 90. @throws Error for a target that is not CUDA.
int cuda_architecture(std::string_view target);

}  // namespace adamas::codegen
