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

// Callees first, each made small before it is inlined. Then loops get their form and are unrolled where the
// source says so, which is when most of what can be simplified shows. GVN is what keeps reloads out of
// unrolled loops.
constexpr char kPasses[] =
    "cgscc(inline,function(sroa,early-cse,simplifycfg,instcombine<no-verify-fixpoint>)),"
    "globaldce,"
    "function("
    "loop-mssa(loop-rotate,licm),"
    "loop(indvars,loop-idiom,loop-deletion,loop-unroll-full),"
    "sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,gvn,dse,"
    "loop-mssa(licm),"
    "simplifycfg,loop-unroll<no-runtime>,simplifycfg)";

}  // namespace

void run_kernel_passes(llvm::Module& module, llvm::TargetMachine& machine) {
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
