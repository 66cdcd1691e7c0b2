// Drives clang's front end and LLVM's code generator for one freestanding translation unit.
#include "tools/adamas-cc/compile.hpp"

#include <memory>
#include <vector>

#include "clang/Basic/Diagnostic.h"
#include "clang/CodeGen/CodeGenAction.h"
#include "clang/Frontend/CompilerInstance.h"
#include "clang/Frontend/CompilerInvocation.h"
#include "clang/Frontend/TextDiagnosticPrinter.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/VirtualFileSystem.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Triple.h"

namespace adamas::tools::cc {
namespace {

// The checks of -fsanitize=undefined whose handlers gcc's runtime has too: the host may have been built with
// gcc. Left out: function and vptr (no such handlers there), and what needs type information of the host.
constexpr char kUndefinedChecks[] =
    "-fsanitize=alignment,array-bounds,bool,builtin,enum,float-cast-overflow,integer-divide-by-zero,null,"
    "pointer-overflow,return,shift-base,shift-exponent,signed-integer-overflow,unreachable,vla-bound";

// Only the architectures that are asked for: initialising all of Debian's twenty takes longer than a small
// kernel.
void initialize_target(const llvm::Triple& triple) {
  if (triple.getArch() == llvm::Triple::x86_64) {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmParser();
    LLVMInitializeX86AsmPrinter();
  } else if (triple.getArch() == llvm::Triple::aarch64) {
    LLVMInitializeAArch64TargetInfo();
    LLVMInitializeAArch64Target();
    LLVMInitializeAArch64TargetMC();
    LLVMInitializeAArch64AsmParser();
    LLVMInitializeAArch64AsmPrinter();
  } else {
    throw UsageError("triple=" + triple.str() + ": must be of x86_64 or aarch64");
  }
}

std::vector<std::string> clang_arguments(const CompileOptions& options) {
  const Target& target = options.target;
  std::vector<std::string> arguments = {
      "-triple", target.triple, "-target-cpu", target.cpu, "-O" + std::to_string(options.optimize),
      // (Without -fmath-errno, sqrt is an instruction, not a call that would need libm.)
      // Freestanding: no headers, no library, no run-time type information, no thread-safe statics.
      "-x", "c++", "-std=c++20", "-ffreestanding", "-nostdsysteminc", "-nobuiltininc", "-fno-rtti",
      "-fno-threadsafe-statics",
      // A shared object that exports only what the source marks.
      "-mrelocation-model", "pic", "-pic-level", "2", "-fvisibility=hidden",
      // Results must not depend on what a target can fuse; the source allows it by pragma where it may.
      "-ffp-contract=off",
      // The source's vector types decide the width; a CPU's tuning must not split 64-byte vectors in halves.
      "-mprefer-vector-width=512", "-Wno-psabi",
      // As the driver of a released clang does: passes neither carry names along nor check each other.
      "-discard-value-names", "-disable-llvm-verifier",
      // Profilers and debuggers can walk through kernels.
      "-funwind-tables=1", "-main-file-name", options.name};
  const auto add = [&](std::initializer_list<const char*> more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
  };
  if (!target.tune.empty()) add({"-tune-cpu", target.tune.c_str()});
  for (const std::string& feature : target.features)
    add({"-target-feature", feature.c_str()});
  if (options.vectorize) {
    add({"-vectorize-loops", "-vectorize-slp"});
  } else {
    add({"-fno-unroll-loops"});  // pragmas in the source still unroll and vectorize
  }
  if (options.address) {
    // Fake stacks are a matter of the runtime's version, and kernels return no pointers to locals.
    add({"-fsanitize=address", "-fsanitize-address-use-after-scope",
         "-fsanitize-address-use-after-return=never"});
  }
  if (options.thread) add({"-fsanitize=thread"});
  if (options.undefined) add({kUndefinedChecks});
  if (options.address || options.thread || options.undefined) {
    add({"-debug-info-kind=line-tables-only", "-dwarf-version=4", "-fdebug-compilation-dir=/",
         "-mframe-pointer=all"});
  } else {
    add({"-mframe-pointer=none"});
  }
  arguments.push_back(options.name);
  return arguments;
}

std::unique_ptr<clang::FrontendAction> make_action(Output output) {
  switch (output) {
    case Output::assembly:
      return std::make_unique<clang::EmitAssemblyAction>();
    case Output::llvm_text:
      return std::make_unique<clang::EmitLLVMAction>();
    case Output::object:
      break;
  }
  return std::make_unique<clang::EmitObjAction>();
}

}  // namespace

bool compile(const std::string& source, const CompileOptions& options, std::string& diagnostics,
             llvm::SmallVectorImpl<char>& out) {
  initialize_target(llvm::Triple(options.target.triple));

  llvm::raw_string_ostream log(diagnostics);
  llvm::IntrusiveRefCntPtr<clang::DiagnosticOptions> log_options(new clang::DiagnosticOptions);
  auto* printer = new clang::TextDiagnosticPrinter(log, log_options.get());  // owned by the engine
  llvm::IntrusiveRefCntPtr<clang::DiagnosticsEngine> engine(
      new clang::DiagnosticsEngine(new clang::DiagnosticIDs, log_options, printer));

  // The source is the only file there is: nothing of the machine's disk can enter the result.
  llvm::IntrusiveRefCntPtr<llvm::vfs::InMemoryFileSystem> files(new llvm::vfs::InMemoryFileSystem);
  files->setCurrentWorkingDirectory("/");
  files->addFile(options.name, 0, llvm::MemoryBuffer::getMemBuffer(source, options.name));

  const std::vector<std::string> arguments = clang_arguments(options);
  std::vector<const char*> pointers;
  for (const std::string& argument : arguments)
    pointers.push_back(argument.c_str());

  // Never freed: the process is about to end, and tearing the tree down costs milliseconds.
  auto* clang = new clang::CompilerInstance;
  bool ok = clang::CompilerInvocation::CreateFromArgs(clang->getInvocation(), pointers, *engine);
  clang->getFrontendOpts().DisableFree = true;
  clang->getCodeGenOpts().DisableFree = true;
  clang->setDiagnostics(engine.get());
  clang->createFileManager(files);
  clang->setOutputStream(std::make_unique<llvm::raw_svector_ostream>(out));
  auto action = make_action(options.output);
  ok = ok && clang->ExecuteAction(*action);
  log.flush();
  (void)action.release();
  return ok;
}

}  // namespace adamas::tools::cc
