// Tuning spaces: see tuning_space.hpp.
#include "codegen/tuning_space.hpp"

#include <algorithm>
#include <map>
#include <span>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/key_values.hpp"
#include "codegen/target.hpp"
#include "templates/tuning_space.h"

// After the above, whose types they use.
#include "templates/cpu/tuning_space.h"
#include "templates/cuda/tuning_space.h"

namespace adamas::codegen {
namespace {

using templates::TuningMatters;
using templates::TuningValues;

std::span<const TuningValues> values_of(std::string_view target) {
  if (is_cuda_target(target)) return templates::kCudaTuningSpace;
  return templates::kCpuTuningSpace;
}

std::vector<std::pair<std::string, std::string>> pairs_of(const Tuning& tuning) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : words_of(tuning.text())) {
    const std::size_t equals = word.find('=');
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

bool matters(TuningMatters when, const Tuning& tuning) {
  switch (when) {
    case TuningMatters::cluster:
      return tuning.schedule == "cluster";
    case TuningMatters::stages:
      return tuning.schedule == "stages";
    case TuningMatters::always:
      return true;
    case TuningMatters::dense:
      return false;
  }
  return false;
}

/// `tuning` with another value of a key.
Tuning with(const Tuning& tuning, std::string_view key, const std::string& value, const Spec& spec,
            std::string_view target) {
  std::string text;
  for (const auto& [known, old] : pairs_of(tuning))
    text += fmt::format("{}={} ", known, known == key ? value : old);
  return Tuning::parse(text, spec, target);
}

/// Tunings that launch the same: the generator's choice of a cluster, and that cluster by name.
using LaunchKey = std::tuple<std::string, std::uint32_t, std::uint32_t>;

}  // namespace

std::string tuning_value(const Tuning& tuning, std::string_view key) {
  for (const auto& [known, value] : pairs_of(tuning)) {
    if (known == key) return value;
  }
  throw std::out_of_range(fmt::format("no Tuning key '{}'", key));
}

std::string tuning_difference(const Tuning& tuning, const Tuning& base) {
  std::string text;
  for (const auto& [key, value] : pairs_of(tuning)) {
    if (tuning_value(base, key) == value) continue;
    text += (text.empty() ? "" : " ") + key + "=" + value;
  }
  return text;
}

TuningSpace tuning_space(const Spec& spec, std::string_view target, const Shape& shape) {
  const Generator& generator = generator_for(target);
  const Tuning base = generator.default_tuning(spec, target);
  generator.check(spec, base, target);
  TuningSpace space;
  std::vector<Tuning> all{base};
  for (const TuningValues& line : values_of(target)) {
    const std::vector<std::string> values = words_of(line.values);
    space.parameters.push_back({std::string(line.key), values, line.matters == TuningMatters::dense});
    if (line.matters == TuningMatters::dense) continue;
    std::vector<Tuning> more;
    for (const Tuning& tuning : all) {
      if (!matters(line.matters, tuning)) continue;
      for (const std::string& value : values) {
        const Tuning changed = with(tuning, line.key, value, spec, target);
        if (std::ranges::find(all, changed) == all.end()) more.push_back(changed);
      }
    }
    all.insert(all.end(), more.begin(), more.end());
  }

  std::map<LaunchKey, std::string> launches;
  for (const Tuning& tuning : all) {
    const std::string difference = tuning_difference(tuning, base);
    const auto exclude = [&](const std::string& why) { space.excluded.push_back({difference, why}); };
    try {
      generator.check(spec, tuning, target);
    } catch (const Error& error) {
      exclude(fmt::format("{}: {}", error.field(), error.rule()));
      continue;
    }
    if (tuning.schedule == "cluster") {
      const std::optional<Grid> grid = generator.decode_grid(spec, tuning, target, shape);
      if (!grid && tuning == base) {
        space.decode.push_back(tuning);  // what a launch takes then is the default, too
        continue;
      }
      if (!grid) {
        exclude(tuning.cluster == 0
                    ? "no cluster holds this shape, so decode takes its stages"
                    : fmt::format("a cluster of {} does not hold this shape", tuning.cluster));
        continue;
      }
      const std::uint32_t resident =
          shape.processors > 0 ? static_cast<std::uint32_t>(shape.processors) : grid->cluster;
      if (grid->cluster > resident) {
        exclude("more blocks of a cluster than the device has multiprocessors");
        continue;
      }
      Tuning automatic = tuning;
      automatic.cluster = 0;
      const LaunchKey key{automatic.text(), grid->cluster, grid->shared_bytes};
      const auto [same, fresh] = launches.emplace(key, difference);
      if (!fresh) {
        exclude(fmt::format("launches the same as {}", same->second.empty() ? "the default" : same->second));
        continue;
      }
    }
    space.decode.push_back(tuning);
  }
  return space;
}

std::vector<Tuning> dense_tunings(const Spec& spec, std::string_view target, const Tuning& chosen) {
  std::vector<Tuning> tunings{chosen};
  for (const TuningValues& line : values_of(target)) {
    if (line.matters != TuningMatters::dense) continue;
    for (const std::string& value : words_of(line.values)) {
      const Tuning tuning = with(chosen, line.key, value, spec, target);
      try {
        generator_for(target).check(spec, tuning, target);
      } catch (const Error&) {
        continue;
      }
      if (std::ranges::find(tunings, tuning) == tunings.end()) tunings.push_back(tuning);
    }
  }
  return tunings;
}

}  // namespace adamas::codegen
