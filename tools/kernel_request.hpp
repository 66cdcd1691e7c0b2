// What `emit` and `compile` are asked for: a Spec, a Tuning, targets and units, as typed; and what they mean.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "codegen/generator.hpp"

namespace adamas::tools {

/// Options as typed.
struct KernelOptions {
  std::string spec;
  std::string tuning;
  std::string target = "host";     ///< emit: one; compile: a list
  std::vector<std::string> units;  ///< empty: all
};

/// Adds --spec, --tuning, --target and --unit. @param target_help  one target or several
void add_kernel_options(CLI::App& command, KernelOptions& options, const std::string& target_help);

/// A Spec for one target, checked by its generator: everything that emitting and compiling start from.
struct KernelRequest {
  std::string name;    ///< the target as typed: "host"
  std::string target;  ///< resolved
  codegen::Spec spec;
  codegen::Tuning tuning;
};

/// @throws codegen::Error naming the key or target at fault; nothing is compiled.
KernelRequest kernel_request(const KernelOptions& options, const std::string& target_name);

/// The units chosen, in the order of codegen::kUnits.
/// @throws codegen::Error for one that this kernel set does not have.
std::vector<codegen::Unit> chosen_units(const KernelOptions& options, const KernelRequest& request);

/// "sm_90a,host" -> {"sm_90a", "host"}. The features of a CPU's full name are separated by commas, too, and
/// belong to it: "x86-64:znver3:+avx2,+fma" is one target.
std::vector<std::string> split_targets(const std::string& list);

/// Reads a whole text file; "-" is standard input. @throws codegen::Error(ADAMAS_IO_ERROR) naming the path.
std::string read_text(const std::string& option, const std::string& path);

/// Writes the whole file. @throws codegen::Error(ADAMAS_IO_ERROR) naming the path.
void write_output(const std::string& path, std::span<const std::byte> bytes);
/// Makes the folder and those above it, if need be. @throws codegen::Error(ADAMAS_IO_ERROR)
void make_output_folder(const std::string& path);

}  // namespace adamas::tools
