// Tunings of a kernel: see kernel_tunings.hpp.
#include "runtime/dispatch/kernel_tunings.hpp"

#include <algorithm>
#include <utility>

#include "codegen/error.hpp"

namespace adamas::runtime {
namespace {

using codegen::Tuning;

bool within(const TunedShape& shape, const TunedShape& capacity) {
  return shape.batch <= capacity.batch && shape.tokens <= capacity.tokens;
}

/// The tuning file's for the capacities. Nothing if it has none.
KernelTunings tuned_for(const TuningFile& file, const codegen::Spec& spec, const std::string& target,
                        const std::string& device_name, const TunedShape& capacity) {
  std::vector<const TunedEntry*> entries = entries_for(file, spec.text(), target, device_name);
  if (entries.empty()) return {};
  const TunedEntry* const first = nearest_entry(entries, capacity);
  std::erase_if(entries,
                [&](const TunedEntry* entry) { return entry != first && !within(entry->shape, capacity); });
  std::ranges::stable_partition(entries, [&](const TunedEntry* entry) { return entry == first; });
  KernelTunings result;
  for (const TunedEntry* entry : entries) {
    const Tuning tuning =
        Tuning::parse(entry->tuning, spec, target);  // the file was checked when it was read
    const auto known = std::ranges::find(result.tunings, tuning);
    result.tuned.push_back(
        {entry->shape.position(), static_cast<std::size_t>(known - result.tunings.begin())});
    if (known == result.tunings.end()) result.tunings.push_back(tuning);
  }
  return result;
}

}  // namespace

KernelTunings kernel_tunings(const Context& context, const std::string& text, const codegen::Spec& spec,
                             const std::string& target, const TunedShape& capacity) {
  if (!text.empty()) return {{Tuning::parse(text, spec, target)}, {}};
  KernelTunings tuned = tuned_for(context.tunings(), spec, target, context.device().name(), capacity);
  if (!tuned.tunings.empty()) return tuned;
  if (const std::string* packed = context.cache().packed_tuning(target, spec.text())) {
    try {
      return {{Tuning::parse(*packed, spec, target)}, {}};
    } catch (const codegen::Error&) {
      // Of a version whose Tuning had other keys: its kernels are of no use either.
    }
  }
  return {{Tuning::parse("", spec, target)}, {}};
}

std::size_t nearest_variant(const std::vector<TunedVariant>& tuned, const TunedShape& shape) {
  if (tuned.size() <= 1) return tuned.empty() ? 0 : tuned.front().variant;
  const TunedShape::Position place = shape.position();
  std::size_t variant = 0;
  double least = 0;
  bool any = false;
  for (const TunedVariant& candidate : tuned) {
    const double distance = candidate.position.distance(place);
    if (any && distance >= least) continue;
    any = true, least = distance, variant = candidate.variant;
  }
  return variant;
}

}  // namespace adamas::runtime
