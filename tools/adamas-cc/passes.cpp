// Kernels say themselves what is inlined, unrolled and a vector. What is left to do takes a fraction of the
// passes of -O2, and of their time; in their order here they also leave the scan's loops shorter.
#include "tools/adamas-cc/passes.hpp"

#include <stdexcept>
#include <string>

#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Target/TargetMachine.h"

namespace adamas::tools::cc {
namespace {

// Callees first, each made small before it is inlined; then loops get their form and are unrolled where the
// source says so. Most of what can be simplified shows only then, so the costlier passes run once, after it.
// GVN is what keeps reloads out of unrolled loops. Left out, as they took a seventh of a compile and made no
// kernel faster: induction variables (the code generator chooses its own) and simplifying callees twice.
constexpr char kPasses[] =
    "cgscc(inline,function(sroa,early-cse,simplifycfg)),"
    "globaldce,"
    "function("
    "loop(loop-rotate),"
    "loop(loop-unroll-full),"
    "sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,gvn,dse,"
    "loop-mssa(licm),"
    "simplifycfg,loop-unroll<no-runtime>,simplifycfg)";

// Clang notes for each function how wide its vectors are. Functions that differ in it are for machines of
// their own to LLVM, each of which parses all features anew; kernels take vectors as wide as there are
// anyway.
void unify_vector_widths(llvm::Module& module) {
  for (llvm::Function& function : module) {
    if (function.hasFnAttribute("min-legal-vector-width"))
      function.addFnAttr("min-legal-vector-width", "512");
  }
}

}  // namespace

void run_kernel_passes(llvm::Module& module, llvm::TargetMachine& machine) {
  unify_vector_widths(module);
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager components;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  llvm::ModulePassManager passes;
  if (auto error = builder.parsePassPipeline(passes, kPasses))
    throw std::runtime_error("adamas-cc's own passes: " + llvm::toString(std::move(error)));
  passes.run(module, modules);
}

}  // namespace adamas::tools::cc
