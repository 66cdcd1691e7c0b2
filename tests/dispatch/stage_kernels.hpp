// The CPU kernels of a Spec, compiled and called below the runtime.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "codegen/generator.hpp"
#include "runtime/device/shared_object.hpp"
#include "templates/args.h"

namespace adamas::tests {

/// The three units of a Spec, loaded. CHECKs that they compile without a warning.
class StageKernels {
 public:
  StageKernels(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target);

  /// Runs every work item of the grid on this thread, the first first or the last first.
  void run(codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args,
           bool backwards) const;

 private:
  std::vector<std::unique_ptr<runtime::SharedObject>> units_;
};

/// Compiled once a process.
const StageKernels& stage_kernels(const codegen::Spec& spec, const codegen::Tuning& tuning,
                                  const std::string& target);

/// Whether there is a CPU compiler; says so where there is none.
bool can_compile();

}  // namespace adamas::tests
