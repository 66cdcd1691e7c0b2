// Units: see units.hpp.
#include "runtime/dispatch/units.hpp"

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/target.hpp"
#include "runtime/compile/cpu_compiler.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"

namespace adamas::runtime {

std::string resolve_target(const std::string& name) {
  if (name == "host") return host_cpu_target();
  codegen::check_target(name);
  return name;
}

std::shared_ptr<Compiler> compiler_for(const std::string& target) {
  if (codegen::is_cuda_target(target)) return nvrtc_compiler();
  return make_cpu_compiler();
}

CacheKey unit_key(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target,
                  codegen::Unit unit, const Compiler& compiler) {
  return {.unit = std::string(codegen::name(unit)),
          .spec = spec.text(),
          .tuning = tuning.text(),
          .source = codegen::generator_for(target).emit(spec, tuning, target, unit),
          .target = target,
          .options = compiler.implied_options()};
}

UnitKeys unit_keys(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target,
                   const Compiler& compiler) {
  UnitKeys keys;
  for (const codegen::Unit unit : codegen::generator_for(target).units(spec, tuning, target))
    keys.push_back(unit_key(spec, tuning, target, unit, compiler));
  return keys;
}

CompileRequest unit_request(const CacheKey& key) {
  return {.name = fmt::format("adamas_{}.{}", key.unit, codegen::is_cuda_target(key.target) ? "cu" : "cc"),
          .source = key.source,
          .target = key.target,
          .options = {},  // the compiler adds its implied ones itself
          .spec_text = fmt::format("{}; {}", key.spec, key.tuning)};
}

CompileResult compile_unit(Compiler& compiler, const CacheKey& key) {
  // Asking the compiler first whether it works would start adamas-cc once more for every unit.
  try {
    return compiler.compile(unit_request(key));
  } catch (const codegen::Error& error) {
    if (error.code() != ADAMAS_UNAVAILABLE) throw;
    throw codegen::Error(ADAMAS_UNAVAILABLE, "kernel",
                         fmt::format("{} of \"{}\" for {}", key.unit, key.spec, key.target),
                         "is in no cache and cannot be compiled here", error.what());
  }
}

}  // namespace adamas::runtime
