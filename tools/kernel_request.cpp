// Options of `emit` and `compile`: see kernel_request.hpp.
#include "tools/kernel_request.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <system_error>

#include "codegen/error.hpp"
#include "runtime/dispatch/units.hpp"

namespace adamas::tools {

using codegen::Error;

void add_kernel_options(CLI::App& command, KernelOptions& options, const std::string& target_help) {
  std::vector<std::string> names;
  for (const codegen::Unit unit : codegen::kUnits)
    names.emplace_back(codegen::name(unit));
  command.add_option("--spec", options.spec,
                     "what the kernels are for: key=value ... (default: every default)");
  command.add_option("--target", options.target, target_help + " (default: host)");
  command.add_option("--tuning", options.tuning, "how they work: key=value ... (default: the target's)");
  command
      .add_option("--unit", options.units,
                  "only these parts: encode, select, attend, decode, decode_pair, decode_long (default: all it has)")
      ->delimiter(',')
      ->check(CLI::IsMember(names));
}

KernelRequest kernel_request(const KernelOptions& options, const std::string& target_name) {
  KernelRequest request;
  request.name = target_name;
  request.target = runtime::resolve_target(target_name);
  request.spec = codegen::Spec::parse(options.spec);
  request.tuning = codegen::Tuning::parse(options.tuning, request.spec, request.target);
  codegen::generator_for(request.target).check(request.spec, request.tuning, request.target);
  return request;
}

std::vector<codegen::Unit> chosen_units(const KernelOptions& options, const KernelRequest& request) {
  std::vector<codegen::Unit> units =
      codegen::generator_for(request.target).units(request.spec, request.tuning, request.target);
  if (options.units.empty()) return units;
  for (const std::string& name : options.units) {
    if (std::ranges::none_of(units, [&](codegen::Unit unit) { return codegen::name(unit) == name; })) {
      throw Error(ADAMAS_UNSUPPORTED, "unit", name, "is no part of this kernel set for " + request.target,
                  "leave --unit out to see which are");
    }
  }
  std::erase_if(units, [&](codegen::Unit unit) {
    return std::ranges::find(options.units, codegen::name(unit)) == options.units.end();
  });
  return units;
}

std::vector<std::string> split_targets(const std::string& list) {
  std::vector<std::string> targets;
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t comma = std::min(list.find(',', at), list.size());
    const std::string piece = list.substr(at, comma - at);
    const bool feature = !piece.empty() && (piece.front() == '+' || piece.front() == '-');
    if (feature && !targets.empty()) {
      targets.back() += "," + piece;
    } else {
      const std::size_t first = std::min(piece.find_first_not_of(' '), piece.size());
      targets.push_back(piece.substr(first));  // "sm_90a, host"
    }
    at = comma + 1;
  }
  return targets;
}

std::string read_text(const std::string& option, const std::string& path) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& stream = path == "-" ? std::cin : file;
  std::ostringstream text;
  if (stream.good() && stream.peek() != std::istream::traits_type::eof()) text << stream.rdbuf();
  if (stream.bad() || text.fail() || (path != "-" && !file.is_open())) {
    throw Error(ADAMAS_IO_ERROR, option, path, std::string("cannot be read: ") + std::strerror(errno));
  }
  return text.str();
}

void write_output(const std::string& path, std::span<const std::byte> bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wbe"), std::fclose);
  const bool written = file && std::fwrite(bytes.data(), 1, bytes.size(), file.get()) == bytes.size() &&
                       std::fflush(file.get()) == 0;
  if (!written) {
    throw Error(ADAMAS_IO_ERROR, "out", path, std::string("cannot be written: ") + std::strerror(errno));
  }
}

void make_output_folder(const std::string& path) {
  std::error_code failure;
  std::filesystem::create_directories(path, failure);
  if (!std::filesystem::is_directory(path)) {
    throw Error(ADAMAS_IO_ERROR, "out", path,
                "is no folder that could be created" + (failure ? ": " + failure.message() : std::string()));
  }
}

}  // namespace adamas::tools
