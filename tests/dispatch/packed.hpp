// A pack of a Spec's kernels, made with the compilers of this machine.
#pragma once

#include <string>

#include "codegen/spec.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/dispatch/units.hpp"

namespace adamas::tests {

/// Compiles every unit of the Spec for the target, through the tests' cache, into a pack.
/// @param tuning  "" = the target's default
inline void write_kernel_pack(const std::string& path, const std::string& spec_text, const std::string& target,
                              const std::string& tuning_text = "") {
  const auto spec = codegen::Spec::parse(spec_text);
  const auto tuning = codegen::Tuning::parse(tuning_text, spec, target);
  const auto compiler = runtime::compiler_for(target);
  runtime::Cache cache(std::nullopt, {});
  runtime::PackWriter writer;
  for (const runtime::CacheKey& key : runtime::unit_keys(spec, tuning, target, *compiler)) {
    const runtime::CacheEntry entry =
        cache.get({key}, [&](const runtime::CacheKey& k) { return runtime::compile_unit(*compiler, k); });
    const runtime::EntryInfo info{.digest = key.digest(), .unit = key.unit, .spec = key.spec, .tuning = key.tuning,
                                  .target = key.target, .options = key.options, .compiler = entry.compiler};
    writer.add(info, key.text(), *entry.binary);
  }
  writer.add_set({target, spec.text(), tuning.text()});
  writer.write(path);
}

}  // namespace adamas::tests
