// Error memory of the C boundary: see boundary.hpp.
#include "runtime/dispatch/boundary.hpp"

#include <map>
#include <optional>

namespace adamas::runtime {
namespace {

struct ErrorMemory {
  std::map<std::uint64_t, codegen::Error> by_context;  // 0: the last of any
};

ErrorMemory& memory() {
  thread_local ErrorMemory errors;
  return errors;
}

}  // namespace

void remember_error(std::uint64_t context_id, const codegen::Error& error) noexcept {
  try {
    memory().by_context.insert_or_assign(0, error);
    if (context_id != 0) memory().by_context.insert_or_assign(context_id, error);
  } catch (...) {
    // Without memory for the message the status code still tells what happened.
  }
}

adamas_status recall_error(std::uint64_t context_id, adamas_error_info* info) noexcept {
  return guarded(0, [&] {
    adamas_error_info filled{};
    filled.message = filled.field = filled.value = filled.rule = filled.hint = "";
    const auto& errors = memory().by_context;
    if (const auto found = errors.find(context_id); found != errors.end()) {
      const codegen::Error& error = found->second;
      filled.status = error.code();
      filled.message = error.what();
      filled.field = error.field().c_str();
      filled.value = error.value().c_str();
      filled.rule = error.rule().c_str();
      filled.hint = error.hint().c_str();
    }
    sized_fill(info, filled, "info");
  });
}

}  // namespace adamas::runtime
