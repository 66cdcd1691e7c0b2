// Units: the separately compiled parts of a kernel set. What names them in the cache, and how a miss is
// compiled. Needs no device: what `adamas compile` stores on one machine is what prepare looks for on
// another.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "codegen/generator.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/compile/compiler.hpp"

namespace adamas::runtime {

/// In the order of Generator::units.
using UnitKeys = std::vector<CacheKey>;

/// "host" becomes this machine's exact CPU target; any other name stays.
/// @throws codegen::Error(ADAMAS_INVALID_SPEC) for a name that is no target
std::string resolve_target(const std::string& name);

/// The compiler that a device of this target uses. Cheap: nothing is started or loaded yet.
std::shared_ptr<Compiler> compiler_for(const std::string& target);

/// @param compiler  its implied options are part of the key; it is not asked to compile
CacheKey unit_key(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target,
                  codegen::Unit unit, const Compiler& compiler);
/// Of all units of the kernel set.
UnitKeys unit_keys(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target,
                   const Compiler& compiler);

/// What the compiler is asked for when a key is in no cache.
CompileRequest unit_request(const CacheKey& key);

/// @throws codegen::Error  ADAMAS_UNAVAILABLE, naming the kernel, when there is no compiler; else as
/// Compiler::compile
CompileResult compile_unit(Compiler& compiler, const CacheKey& key);

}  // namespace adamas::runtime
