// See stage_kernels.hpp.
#include "tests/dispatch/stage_kernels.hpp"

#include <doctest/doctest.h>

#include <map>

#include "codegen/format.hpp"
#include "runtime/compile/cpu_compiler.hpp"

namespace adamas::tests {

StageKernels::StageKernels(const codegen::Spec& spec, const codegen::Tuning& tuning,
                           const std::string& target) {
  static const auto compiler = runtime::make_cpu_compiler();
  for (const codegen::Unit unit : codegen::cpu_generator().units(spec, tuning, target)) {
    const std::string source = codegen::cpu_generator().emit(spec, tuning, target, unit);
    const auto result = compiler->compile({.name = fmt::format("{}.cc", name(unit)),
                                           .source = source,
                                           .target = target,
                                           .options = {},
                                           .spec_text = spec.text()});
    CHECK_MESSAGE(result.log.empty(), "warnings of unit ", name(unit), " of ", spec.text(), ":\n",
                  result.log);
    units_.push_back(std::make_unique<runtime::SharedObject>(std::string(name(unit)), result.binary));
  }
}

void StageKernels::run(codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args,
                       bool backwards) const {
  using Entry = void (*)(const adamas_abi::Args*, unsigned, unsigned, unsigned);
  void* const symbol = units_[static_cast<std::size_t>(unit_of(stage))]->symbol(entry_name(stage));
  REQUIRE(symbol != nullptr);
  const std::uint32_t items = grid.x * grid.y * grid.z;
  for (std::uint32_t i = 0; i < items; ++i) {
    const std::uint32_t item = backwards ? items - 1 - i : i;
    reinterpret_cast<Entry>(symbol)(&args, item % grid.x, item / grid.x % grid.y, item / grid.x / grid.y);
  }
}

const StageKernels& stage_kernels(const codegen::Spec& spec, const codegen::Tuning& tuning,
                                  const std::string& target) {
  static std::map<std::string, std::unique_ptr<StageKernels>> loaded;
  auto& kernels = loaded[spec.text() + tuning.text() + target];
  if (!kernels) kernels = std::make_unique<StageKernels>(spec, tuning, target);
  return *kernels;
}

bool can_compile() {
  static const std::string missing = runtime::make_cpu_compiler()->unavailable();
  if (!missing.empty()) MESSAGE("left out: " << missing);
  return missing.empty();
}

}  // namespace adamas::tests
