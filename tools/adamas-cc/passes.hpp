// The passes that generated kernels go through between clang's front end and its code generator.
#pragma once

namespace llvm {
class Module;
class TargetMachine;
}  // namespace llvm

namespace adamas::tools::cc {

void run_kernel_passes(llvm::Module& module, llvm::TargetMachine& machine);

}  // namespace adamas::tools::cc
