// Context: see context.hpp.
#include "runtime/dispatch/context.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "codegen/error.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"
#include "runtime/cache/pack.hpp"

namespace adamas::runtime {
namespace {

std::uint64_t next_id() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

/// What packs were tuned for. Sets of a version whose Spec or Tuning had other keys are of no use.
TuningFile packed_tunings(const Cache& cache) {
  TuningFile file;
  for (const auto& pack : cache.packs()) {
    for (const PackedSet& set : pack->sets()) {
      if (set.batch == 0) continue;
      try {
        const auto spec = codegen::Spec::parse(set.spec);
        file.put({.spec = spec.text(),
                  .target = set.target,
                  .shape = {.batch = set.batch, .kv_heads = set.kv_heads, .tokens = set.tokens},
                  .tuning = codegen::Tuning::parse(set.tuning, spec, set.target).text(),
                  .device_name = set.device_name});
      } catch (const codegen::Error&) {
        continue;
      }
    }
  }
  return file;
}

/// Of the packs, then of the files: a machine's own word counts more. Contexts work without either: a file
/// that cannot be read is a warning.
TuningFile load_tunings(const ContextConfig& config, const Cache& cache) {
  const std::string& cache_folder = cache.directory();
  std::string list = config.tuning.value_or("");
  if (!config.tuning) {
    const char* variable = ::secure_getenv("ADAMAS_TUNING");
    const std::string own = cache_folder.empty() ? "" : cache_folder + "/tuning.json";
    list = variable != nullptr ? variable : ::access(own.c_str(), R_OK) == 0 ? own : "";
  }
  TuningFile file = packed_tunings(cache);
  for (std::size_t begin = 0; begin < list.size();) {
    const std::size_t end = std::min(list.find(':', begin), list.size());
    const std::string path = list.substr(begin, end - begin);
    begin = end + 1;
    if (path.empty()) continue;
    try {
      file.merge(TuningFile::read(path));
    } catch (const codegen::Error& error) {
      if (config.cache.log) config.cache.log(LogLevel::warning, std::string(error.what()) + "; the default Tunings are used");
    }
  }
  return file;
}

}  // namespace

Context::Context(const ContextConfig& config)
    : device_(open_device(config.device, config.threads, config.parallel_for)),
      memory_(*device_, config.allocator),
      cache_(std::make_unique<Cache>(config.cache)),
      background_(std::make_unique<BackgroundCompiler>(*cache_)),
      policy_(config.policy),
      tunings_(load_tunings(config, *cache_)),
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
