// Writes the CUDA source of every Spec of specs.hpp as C++ that the emulation can compile: one file a Spec
// and unit, each in a namespace of its own, with its entry points registered. Usage: emit_sources FOLDER
// COUNT. COUNT is what the build expects, so that a Spec added to the list is not silently left out.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "codegen/format.hpp"
#include "codegen/generator.hpp"
#include "codegen/templates.hpp"
#include "tests/cuda_emulation/specs.hpp"

namespace {

using namespace adamas::codegen;
using adamas::cuda_emulation::kSpecs;

constexpr std::string_view kTarget = "sm_90a";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (text.find(from) == std::string::npos)
    throw std::runtime_error(fmt::format("not in the source: {}", from));
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

/// Templates that hold PTX: device.hpp has their functions in C++.
constexpr std::string_view kPtx[]{"cuda/convert.cuh",    "cuda/binary_mma.cuh",  "cuda/byte_mma.cuh",
                                  "cuda/copy_async.cuh", "cuda/tensor_core.cuh", "cuda/cluster.cuh",
                                  "cuda/launch.cuh"};

/// One unit as C++. Changed are the pieces with PTX, dynamic shared memory, which every running block has its
/// own of, and the linkage of entry points, whose names repeat in every Spec.
std::string emulated_unit(std::size_t index, Unit unit) {
  const Spec spec = Spec::parse(kSpecs[index].spec);
  const Tuning tuning = Tuning::parse(kSpecs[index].tuning, spec, kTarget);
  cuda_generator().check(spec, tuning, kTarget);
  const std::vector<Unit> units = cuda_generator().units(spec, tuning, kTarget);
  if (std::ranges::find(units, unit) == units.end()) {
    return fmt::format("// {} has no unit {}.\n", kSpecs[index].spec, name(unit));
  }
  std::string source = cuda_generator().emit(spec, tuning, kTarget, unit);
  for (const std::string_view path : kPtx) {
    const std::string_view text = embedded_template(path);
    if (source.find(text) != std::string::npos) replace_all(source, text, "");
  }
  for (std::size_t at = 0; (at = source.find("asm", at)) != std::string::npos; ++at) {
    // No instruction: it only hides a value from the compiler, here too.
    if (!source.substr(at).starts_with("asm volatile(\"\" :"))
      throw std::runtime_error("PTX in another place");
  }
  replace_all(source, "extern \"C\" ", "");
  if (unit != Unit::select) {
    replace_all(source,
                fmt::format("extern __shared__ __align__({}) unsigned char dynamic_shared[];",
                            decodes(unit) ? 128 : 16),
                "");
  }
  // Blocks of a cluster run at once, so a static variable would be shared by all of them.
  if (decodes(unit) && source.find("__shared__") != std::string::npos) {
    throw std::runtime_error("a decode unit has shared memory that is not dynamic");
  }

  const std::string space = fmt::format("spec{}_{}", index, name(unit));
  std::string text = "#include \"tests/cuda_emulation/device.hpp\"\n\n";
  text += fmt::format("namespace {} {{\n", space);
  text += "namespace adamas_cuda {\nusing namespace ::adamas::cuda_emulation;\n}\n";
  text += source;
  text += fmt::format("}}  // namespace {}\n", space);
  for (const Stage stage : kStages) {
    if (unit_of(stage) != unit) continue;
    const std::string entry = fmt::format("{}::adamas_cuda::{}", space, entry_name(stage));
    text += fmt::format(
        "static const adamas::cuda_emulation::Registration register_{}({}, \"{}\", [](const void* args) {{\n"
        "  {}(*static_cast<const {}::adamas_abi::Args*>(args));\n}});\n",
        name(stage), index, name(stage), entry, space);
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw std::runtime_error("usage: emit_sources FOLDER COUNT");
    if (std::atoi(argv[2]) != static_cast<int>(std::size(kSpecs))) {
      throw std::runtime_error(
          fmt::format("specs.hpp lists {} Specs, the build expects {}", std::size(kSpecs), argv[2]));
    }
    for (std::size_t index = 0; index < std::size(kSpecs); ++index) {
      for (const Unit unit : kUnits) {
        std::ofstream file(fmt::format("{}/spec{}_{}.cpp", argv[1], index, name(unit)));
        if (!(file << emulated_unit(index, unit)).flush())
          throw std::runtime_error("cannot write the sources");
      }
    }
  } catch (const std::exception& error) {
    std::cerr << "emit_sources: " << error.what() << '\n';
    return 1;
  }
}
