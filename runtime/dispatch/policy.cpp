// Policy: see policy.hpp.
#include "runtime/dispatch/policy.hpp"

#include <fmt/ranges.h>

#include <cstdlib>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::runtime {

using codegen::Error;

CompilePolicy parse_compile_policy(const std::string& word) {
  if (word == "allow") return CompilePolicy::allow;
  if (word == "deny") return CompilePolicy::deny;
  if (word == "background") return CompilePolicy::background;
  const char* variable = word.empty() ? ::secure_getenv("ADAMAS_COMPILE") : nullptr;
  if (word.empty() && (variable == nullptr || *variable == '\0')) return CompilePolicy::allow;
  if (variable != nullptr && *variable != '\0') return parse_compile_policy(variable);
  throw Error(ADAMAS_INVALID_ARGUMENT, "ADAMAS_COMPILE", word, "must be allow, deny or background");
}

void refuse_to_compile(const std::vector<CacheKey>& missing, const std::string& tuning_text) {
  std::vector<std::string> units;
  for (const CacheKey& key : missing)
    units.push_back(key.unit);
  const CacheKey& first = missing.front();
  const std::string tuning =
      tuning_text.empty() ? std::string() : fmt::format(" --tuning \"{}\"", first.tuning);
  throw Error(ADAMAS_UNAVAILABLE, "kernel",
              fmt::format("{} of \"{}\" for {}", fmt::join(units, ", "), first.spec, first.target),
              "is in no pack and in no cache, and compile=deny forbids to compile it",
              fmt::format("run: adamas precompile --spec \"{}\" --targets \"{}\"{} --out adamas.pack; then name the "
                          "pack in ADAMAS_PACKS",
                          first.spec, first.target, tuning));
}

}  // namespace adamas::runtime
