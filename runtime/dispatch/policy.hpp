// Policy: whether prepare may compile, and what is said to those who may not.
#pragma once

#include <string>
#include <vector>

#include "runtime/cache/cache.hpp"

namespace adamas::runtime {

enum class CompilePolicy {
  allow,
  deny,        ///< a kernel that is in no cache fails
  background,  ///< such a kernel runs densely until a thread has compiled it and the host asks for it
};

/// "allow", "deny" or "background"; "" is $ADAMAS_COMPILE, else allow.
/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) for another word
CompilePolicy parse_compile_policy(const std::string& word);

/// The error of a denied compile: which units of which Spec are missing, and the command that provides them.
/// @param tuning_text  what the host asked for; "" = the default
[[noreturn]] void refuse_to_compile(const std::vector<CacheKey>& missing, const std::string& tuning_text);

}  // namespace adamas::runtime
