// The CPU compiler's client: runs adamas-cc, which keeps LLVM out of the host process.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "runtime/compile/compiler.hpp"

namespace adamas::runtime {

struct CpuCompilerConfig {
  std::string program;   ///< path of adamas-cc; empty: looked for relative to the library
  std::string sanitize;  ///< instrumented mode: "address", "undefined", "thread" or a list; the process needs
                         ///< the runtime
  std::chrono::milliseconds time_limit{120'000};  ///< of one compile; then the compiler is killed

  /// ADAMAS_CC and ADAMAS_CC_SANITIZE.
  static CpuCompilerConfig from_environment();
};

/// Path of the adamas-cc that such a compiler runs; empty if none was found.
std::string cpu_compiler_program(const CpuCompilerConfig& config = CpuCompilerConfig::from_environment());

/// Never fails: what is missing is told by unavailable() and compile().
std::unique_ptr<Compiler> make_cpu_compiler(CpuCompilerConfig config = CpuCompilerConfig::from_environment());

}  // namespace adamas::runtime
