// Kernel: Spec -> sources -> cached or compiled binaries -> loaded stages.
#include "runtime/dispatch/kernel.hpp"

#include <algorithm>
#include <chrono>
#include <functional>
#include <future>
#include <limits>
#include <utility>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/dispatch/units.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

/// What attends to all tokens: enough to answer while the rest is compiled.
constexpr codegen::Unit kDenseUnit = codegen::Unit::attend;

constexpr std::int64_t kMaxTokens = std::int64_t{1} << 30;
constexpr std::int64_t kMaxSlots = std::numeric_limits<std::int32_t>::max();  // slots travel as int32

template <class T>
void check_range(const char* field, T value, T low, T high) {
  if (value < low || value > high) {
    throw Error(ADAMAS_INVALID_ARGUMENT, field, fmt::to_string(value),
                fmt::format("must be {}..{}", low, high),
                fmt::format("nearest valid value: {}", value < low ? low : high));
  }
}

/// The largest launch that capacities allow.
TunedShape shape_of(const Capacity& capacity) {
  return {.batch = capacity.max_batch, .kv_heads = capacity.kv_heads, .tokens = capacity.max_tokens};
}

std::vector<codegen::Stage> stages_of(codegen::Unit unit) {
  std::vector<codegen::Stage> stages;
  for (const auto stage : codegen::kStages) {
    if (codegen::unit_of(stage) == unit) stages.push_back(stage);
  }
  return stages;
}

struct LoadedUnit {
  std::shared_ptr<const Module> module;
  CacheEntry entry;
};

/// A binary that the loader refuses is a miss: forget it and look again. Several compilers' binaries may lie
/// under one key, so the next may be refused too; what was compiled just now is not.
/// @param compile  what a miss does
LoadedUnit load_unit(const Context& context, const CacheKey& key, codegen::Unit unit,
                     const std::function<CompileResult(const CacheKey&)>& compile) {
  const Device& device = context.device();
  for (;;) {
    const CacheEntry entry = context.cache().get({key}, compile);
    try {
      return {device.load("adamas_" + std::string(codegen::name(unit)), *entry.binary, stages_of(unit)),
              entry};
    } catch (const Error& error) {
      if (error.code() != ADAMAS_DEVICE_ERROR || entry.origin == CacheEntry::Origin::compiled) throw;
      context.cache().reject(key, entry);
    }
  }
}

/// One unit of one variant.
struct WantedUnit {
  std::size_t variant;
  codegen::Unit unit;
  CacheKey key;
};

/// Of those that calls may launch. Plans launch all units but encode, which is the same in all variants.
std::vector<WantedUnit> wanted_units(const codegen::Spec& spec, const std::vector<codegen::Tuning>& tunings,
                                     const std::string& target, const codegen::Shape& shape,
                                     const Compiler& compiler) {
  const codegen::Generator& generator = codegen::generator_for(target);
  std::vector<WantedUnit> wanted;
  for (std::size_t variant = 0; variant < tunings.size(); ++variant) {
    for (const codegen::Unit unit : generator.units(spec, tunings[variant], target)) {
      if (variant > 0 && unit == codegen::Unit::encode) continue;
      if (!generator.may_launch(unit, spec, tunings[variant], target, shape)) continue;
      wanted.push_back({variant, unit, unit_key(spec, tunings[variant], target, unit, compiler)});
    }
  }
  return wanted;
}

}  // namespace

Geometry geometry_of(const codegen::Spec& spec, const Capacity& capacity) {
  check_range("capacity.max_batch", capacity.max_batch, 1, 65535);
  check_range("capacity.kv_heads", capacity.kv_heads, 1, 65535);
  check_range("capacity.max_tokens", capacity.max_tokens, std::int64_t{1}, kMaxTokens);
  check_range("capacity.max_slots", capacity.max_slots, std::int64_t{0}, kMaxSlots);
  Geometry geometry;
  if (const std::int64_t page = codegen::facts_of(spec).page_tokens; page > 0) {
    const std::int64_t pages_a_sequence = (capacity.max_tokens + page - 1) / page;
    geometry.page_tokens = page;
    geometry.pages = capacity.max_slots > 0 ? (capacity.max_slots + page - 1) / page
                                            : capacity.max_batch * pages_a_sequence;
  } else if (capacity.max_slots > 0) {
    geometry.page_tokens = capacity.max_slots;
    geometry.pages = 1;
    geometry.packed = true;
  } else {
    geometry.page_tokens = capacity.max_tokens;
    geometry.pages = capacity.max_batch;
    geometry.sequence_slots = capacity.max_tokens;
  }
  geometry.slots = geometry.page_tokens * geometry.pages;
  if (geometry.slots > kMaxSlots) {
    throw Error(ADAMAS_INVALID_ARGUMENT, "capacity.max_slots", fmt::to_string(geometry.slots),
                "slots (max_batch * max_tokens in whole pages when not given) must fit in 31 bits",
                "give max_slots: the slots that the cache really has");
  }
  return geometry;
}

void Kernel::check(const Context& context, const std::string& spec_text, const std::string& tuning_text,
                   const Capacity& capacity) {
  const Device& device = context.device();
  const auto spec = codegen::Spec::parse(spec_text);
  geometry_of(spec, capacity);
  const std::string target = device.targets().front();
  for (const codegen::Tuning& tuning : kernel_tunings(context, tuning_text, spec, target, shape_of(capacity)).tunings)
    device.generator().check(spec, tuning, target);
}

Kernel::Kernel(std::shared_ptr<Context> context, const std::string& spec, const std::string& tuning,
               const Capacity& capacity, CompilePolicy policy)
    : context_(std::move(context)),
      spec_(codegen::Spec::parse(spec)),
      tuning_text_(tuning),
      facts_(codegen::facts_of(spec_)),
      capacity_(capacity),
      geometry_(geometry_of(spec_, capacity)) {
  code_strides_ = device().generator().code_strides(spec_, capacity.kv_heads, geometry_.page_tokens);
  load_units(policy);
}

std::shared_ptr<const Kernel> Kernel::prepare(std::shared_ptr<Context> context, const std::string& spec,
                                              const std::string& tuning, const Capacity& capacity) {
  check(*context, spec, tuning, capacity);
  const CompilePolicy policy = context->policy();
  return std::shared_ptr<const Kernel>(new Kernel(std::move(context), spec, tuning, capacity, policy));
}

std::shared_ptr<const Kernel> Kernel::refresh(const std::shared_ptr<const Kernel>& kernel, Stream stream) {
  if (kernel->device().is_capturing(stream)) {
    throw Error(ADAMAS_INVALID_ARGUMENT, "stream", "", "must not be captured: refresh loads kernels",
                "refresh before the capture begins or after it has ended");
  }
  if (!kernel->job_) return kernel;
  switch (kernel->job_->state()) {
    case BackgroundJob::State::compiling:
      return nullptr;
    case BackgroundJob::State::failed:
      kernel->job_->rethrow();
    case BackgroundJob::State::ready:
      break;
  }
  // All units are in the cache's memory by now. Only a binary that the loader refuses would be compiled again.
  return std::shared_ptr<const Kernel>(new Kernel(kernel->context_, kernel->spec_.text(), kernel->tuning_text_,
                                                  kernel->capacity_, CompilePolicy::allow));
}

void Kernel::require(codegen::Stage stage) const {
  const codegen::Unit unit = codegen::unit_of(stage);
  if (variants_.front().modules[static_cast<std::size_t>(unit)]) return;
  throw Error(ADAMAS_UNAVAILABLE, "kernel", std::string(codegen::name(unit)) + " of \"" + spec_.text() + "\"",
              "is still being compiled (compile=background)",
              "until refresh returns the complete kernel only decode, dense and attend run; then encode the whole "
              "cache");
}

void Kernel::load_units(CompilePolicy policy) {
  const auto start = Clock::now();
  // The first target whose units are all cached wins; otherwise the device's own target is compiled for. One
  // target for all units: their Tuning, and so their grids, must agree.
  const codegen::Shape shape{.batch = capacity_.max_batch,
                             .kv_heads = capacity_.kv_heads,
                             .max_tokens = capacity_.max_tokens,
                             .processors = device().processors()};
  std::vector<WantedUnit> wanted;
  for (const std::string& target : device().targets()) {
    KernelTunings tunings = kernel_tunings(*context_, tuning_text_, spec_, target, shape_of(capacity_));
    std::vector<WantedUnit> candidate = wanted_units(spec_, tunings.tunings, target, shape, *device().compiler());
    const bool cached = std::all_of(candidate.begin(), candidate.end(), [&](const WantedUnit& unit) {
      return context_->cache().find({unit.key}).binary != nullptr;
    });
    if (cached || report_.target.empty()) {
      report_.target = target;
      variants_.clear();
      for (const codegen::Tuning& tuning : tunings.tunings)
        variants_.push_back({tuning, tuning.text(), {}});
      tuned_ = std::move(tunings.tuned);
      wanted = std::move(candidate);
    }
    if (cached) break;
  }

  // Those who are to provide it must be told the Tuning, if it is not the default.
  const std::string told = tuned_.empty() ? tuning_text_ : variants_.front().text;
  const auto compile = [&](const CacheKey& key) {
    if (policy == CompilePolicy::deny) refuse_to_compile({key}, told);
    return compile_unit(*device().compiler(), key);
  };
  std::vector<LoadedUnit> units(wanted.size());
  std::vector<std::size_t> missing;
  std::vector<CacheKey> later;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (context_->cache().find({wanted[i].key}).binary) {
      units[i] = load_unit(*context_, wanted[i].key, wanted[i].unit, compile);
    } else if (policy == CompilePolicy::background && wanted[i].unit != kDenseUnit) {
      later.push_back(wanted[i].key);
    } else {
      missing.push_back(i);
    }
  }
  if (policy == CompilePolicy::deny && !missing.empty()) {
    std::vector<CacheKey> denied;
    for (const std::size_t i : missing)
      denied.push_back(wanted[i].key);
    refuse_to_compile(denied, told);
  }
  // Only misses are worth threads; each compile is independent.
  const auto compile_start = Clock::now();
  std::vector<std::future<LoadedUnit>> compiling;
  for (const std::size_t i : missing) {
    compiling.push_back(std::async(std::launch::async, [this, &wanted, &compile, i] {
      return load_unit(*context_, wanted[i].key, wanted[i].unit, compile);
    }));
  }
  for (std::size_t n = 0; n < missing.size(); ++n)
    units[missing[n]] = compiling[n].get();
  if (!missing.empty()) report_.compile_ms = milliseconds_since(compile_start);
  if (!later.empty()) {
    job_ = context_->background().add(std::move(later), device().compiler());
    context_->cache().count_fallback();
  }

  for (std::size_t i = 0; i < units.size(); ++i) {
    if (units[i].entry.origin == CacheEntry::Origin::compiled) ++report_.compiles;
    variants_[wanted[i].variant].modules[static_cast<std::size_t>(wanted[i].unit)] = units[i].module;
  }
  report_.units = static_cast<int>(units.size());
  report_.load_ms = milliseconds_since(start) - report_.compile_ms;
}

std::size_t Kernel::variant_for(int batch, std::int64_t tokens) const {
  return nearest_variant(tuned_, {.batch = batch, .kv_heads = capacity_.kv_heads, .tokens = tokens});
}

std::uint64_t Kernel::code_bytes() const {
  return static_cast<std::uint64_t>(code_strides_.page) * static_cast<std::uint64_t>(geometry_.pages);
}

}  // namespace adamas::runtime
