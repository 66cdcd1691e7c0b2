// C++ text to object code, assembly or LLVM text, with clang in this process.
#pragma once

#include <string>

#include "llvm/ADT/SmallVector.h"
#include "tools/adamas-cc/target.hpp"

namespace adamas::tools::cc {

enum class Output { object, assembly, llvm_text };

struct CompileOptions {
  std::string name = "kernel.cc";  ///< what diagnostics call the source
  Target target;
  int optimize = 2;        ///< 0..3
  bool vectorize = false;  ///< clang's loop and SLP vectorizers and its unroller
  bool address = false;    ///< AddressSanitizer's checks; every runtime is the host process's
  bool thread = false;     ///< ThreadSanitizer's; not with address
  bool undefined = false;  ///< UndefinedBehaviorSanitizer's, each fatal
  Output output = Output::object;
};

/// @param diagnostics  warnings and errors are appended, without colours
/// @param out          receives the result
/// @return             false when clang refused the source
bool compile(const std::string& source, const CompileOptions& options, std::string& diagnostics,
             llvm::SmallVectorImpl<char>& out);

}  // namespace adamas::tools::cc
