// Context: see context.hpp.
#include "runtime/dispatch/context.hpp"

#include <unistd.h>

#include <atomic>

#include "codegen/error.hpp"

namespace adamas::runtime {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

Context::Context(const ContextConfig& config)
    : device_(open_device(config.device, config.threads, config.parallel_for)),
      memory_(*device_, config.allocator),
      cache_(std::make_unique<Cache>(config.cache)),
      background_(std::make_unique<BackgroundCompiler>(*cache_)),
      policy_(config.policy),
      id_(next_id()),
      process_(getpid()) {}

void Context::check_process() const {
  if (getpid() != process_) {
    throw codegen::Error(ADAMAS_INVALID_HANDLE, "context", "",
                         "was created in another process: it does not survive fork",
                         "create a context in the child");
  }
}

}  // namespace adamas::runtime
