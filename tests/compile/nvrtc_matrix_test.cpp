// A sample of the NVRTC matrix that meets every Spec, every architecture and every NVRTC; and what compiling
// costs.
#include <doctest/doctest.h>

#include "tests/compile/nvrtc_matrix.hpp"

using namespace adamas::tests;

TEST_CASE("nvrtc matrix: specs x architectures x NVRTC versions compile without spills") {
  check_matrix([](std::size_t spec, std::size_t target, std::size_t compiler, std::size_t compilers) {
    if (spec == 0) return true;  // the default Spec: everything
    // The others: two architectures each, by turns, with one NVRTC each.
    const std::size_t half = std::size(kMatrixTargets) / 2;
    return target % half == spec % half && compiler == (spec + target / half) % compilers;
  });
}

TEST_CASE("nvrtc matrix: what one kernel set costs to compile, cold") {
  const auto compiler = nvrtc_compiler();
  if (!compiler->unavailable().empty()) return;
  const Generator& generator = cuda_generator();
  const Spec spec = Spec::parse("");
  compiler->build_id();  // not part of the cost
  const Tuning tuning = generator.default_tuning(spec, "sm_90a");
  for (const Unit unit : generator.units(spec, tuning, "sm_90a")) {
    const CompileResult result = compiler->compile({.name = fmt::format("{}.cu", name(unit)),
                                                    .source = generator.emit(spec, tuning, "sm_90a", unit),
                                                    .target = "sm_90a",
                                                    .options = {},
                                                    .spec_text = spec.text()});
    CHECK(result.log == "");  // no warnings
    MESSAGE(name(unit) << ": " << result.milliseconds << " ms, " << result.binary.size() << " bytes, "
                       << result.compiler);
  }
}
