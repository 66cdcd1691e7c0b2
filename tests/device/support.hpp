// What the device tests share: kernels written by hand and compiled by the CPU's compiler.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/templates.hpp"
#include "runtime/compile/cpu_compiler.hpp"

namespace adamas::tests {

/// Compiles for a baseline that every machine of this architecture runs; the argument block is put in front.
inline std::vector<std::byte> compile_cpu_unit(std::string_view body) {
#if defined(__x86_64__)
  constexpr char kTarget[] = "x86-64-v2";
#else
  constexpr char kTarget[] = "aarch64";
#endif
  runtime::CompileRequest request;
  request.name = "test_unit.cc";
  request.source = std::string(codegen::embedded_template("args.h")) + std::string(body);
  request.target = kTarget;
  request.spec_text = "written by hand";
  return runtime::make_cpu_compiler()->compile(request).binary;
}

/// Starts the definition of a stage: STAGE(scan) { ... args, x, y, z ... }
inline constexpr std::string_view kStageMacro =
    "\n#define STAGE(name) extern \"C\" __attribute__((visibility(\"default\"))) void adamas_##name( \\\n"
    "    [[maybe_unused]] const adamas_abi::Args* args, [[maybe_unused]] unsigned x, [[maybe_unused]] "
    "unsigned y, \\\n"
    "    [[maybe_unused]] unsigned z)\n";

inline std::vector<std::byte> compile_stages(std::string_view stages) {
  return compile_cpu_unit(std::string(kStageMacro) + std::string(stages));
}

}  // namespace adamas::tests
