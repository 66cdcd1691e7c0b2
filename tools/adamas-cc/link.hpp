// One object file to one shared object, with lld in this process, and the check of what it exports and needs.
#pragma once

#include <string>

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"

namespace adamas::tools::cc {

/// @param sanitized    symbols of the sanitizer runtimes may stay undefined
/// @param diagnostics  lld's messages, or the symbols that may not be needed or exported, are appended
/// @param out          receives the shared object
/// @return             false when linking failed or a symbol is refused
bool link_shared(llvm::ArrayRef<char> object, bool sanitized, std::string& diagnostics,
                 llvm::SmallVectorImpl<char>& out);

}  // namespace adamas::tools::cc
