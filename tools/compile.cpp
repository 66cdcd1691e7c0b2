// `adamas compile`: a kernel set through the cache, for any target, on a machine that may not be able to run
// it. The keys are prepare's own: what is stored here is found there.
#include <elf.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <span>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/target.hpp"
#include "runtime/cache/cache.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "runtime/dispatch/units.hpp"
#include "tools/cli.hpp"
#include "tools/kernel_request.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using nlohmann::ordered_json;

struct CompileOptions {
  KernelOptions kernel;
  std::string out;
  bool report = false, json = false;
};

struct CompiledUnit {
  runtime::CacheKey key;
  runtime::CacheEntry entry{};
  std::uint64_t code_bytes = 0;                     // CPU
  std::vector<runtime::KernelResources> kernels{};  // CUDA, on request
  std::string out_path{};

  bool compiled() const { return entry.origin == runtime::CacheEntry::Origin::compiled; }
};

struct CompiledTarget {
  KernelRequest request;
  std::vector<CompiledUnit> units;
  double wall_ms = 0;

  bool cuda() const { return codegen::is_cuda_target(request.target); }
  int compiles() const {
    return static_cast<int>(
        std::count_if(units.begin(), units.end(), [](const auto& unit) { return unit.compiled(); }));
  }
};

/// Bytes of machine code in a shared object: its executable segments. 0 for what is no 64-bit ELF file.
std::uint64_t code_bytes(std::span<const std::byte> binary) {
  Elf64_Ehdr header;
  if (binary.size() < sizeof header) return 0;
  std::memcpy(&header, binary.data(), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64) return 0;
  const std::size_t table_bytes = std::size_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (header.e_phentsize != sizeof(Elf64_Phdr) || table_bytes > binary.size() ||
      header.e_phoff > binary.size() - table_bytes) {
    return 0;
  }
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, binary.data() + header.e_phoff + i * sizeof segment, sizeof segment);
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0) bytes += segment.p_filesz;
  }
  return bytes;
}

/// What ptxas says, in a compile of its own: asking changes the binary. Nothing for the CPU.
std::vector<runtime::KernelResources> resources(runtime::Compiler& compiler, const runtime::CacheKey& key) {
  auto* nvrtc = dynamic_cast<runtime::NvrtcCompiler*>(&compiler);
  if (nvrtc == nullptr) return {};
  return nvrtc->ptxas_report(runtime::unit_request(key)).kernels;
}

CompiledTarget compile_target(const CompileOptions& options, const std::string& name, runtime::Cache& cache) {
  CompiledTarget result;
  result.request = kernel_request(options.kernel, name);
  const KernelRequest& request = result.request;
  const auto compiler = runtime::compiler_for(request.target);
  const auto start = std::chrono::steady_clock::now();
  const runtime::UnitKeys keys = runtime::unit_keys(request.spec, request.tuning, request.target, *compiler);

  std::vector<std::future<CompiledUnit>> working;
  for (const codegen::Unit unit : chosen_units(options.kernel, request)) {
    const auto key = std::ranges::find(keys, codegen::name(unit), &runtime::CacheKey::unit);
    working.push_back(std::async(std::launch::async, [&, key = *key] {
      CompiledUnit compiled{.key = key};
      compiled.entry = cache.get(
          {key}, [&](const runtime::CacheKey& missing) { return runtime::compile_unit(*compiler, missing); });
      if (!result.cuda()) compiled.code_bytes = code_bytes(*compiled.entry.binary);
      return compiled;
    }));
  }
  for (auto& unit : working)
    result.units.push_back(unit.get());
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  result.wall_ms = elapsed.count();

  if (options.report) {
    for (CompiledUnit& unit : result.units)
      unit.kernels = resources(*compiler, unit.key);
  }
  return result;
}

/// "select.sm_90a.cubin", "select.host.so". The full name of a CPU is too long for a file: its digest stands
/// for it.
std::string file_name(const CompiledTarget& target, const CompiledUnit& unit) {
  std::string name = target.request.name;
  if (name.find(':') != name.npos) {
    name = short_target(name) + "-" + unit.key.digest().substr(0, 8);
    std::replace(name.begin(), name.end(), ':', '-');
  }
  return fmt::format("{}.{}.{}", unit.key.unit, name, target.cuda() ? "cubin" : "so");
}

/// One binary may go to a file of any name; several go to a folder.
void write_binaries(CompiledTarget& target, const std::string& out, bool one_binary) {
  const bool folder = !one_binary || out.ends_with('/') || std::filesystem::is_directory(out);
  if (folder) make_output_folder(out);
  for (CompiledUnit& unit : target.units) {
    unit.out_path = folder ? (std::filesystem::path(out) / file_name(target, unit)).string() : out;
    write_output(unit.out_path, *unit.entry.binary);
  }
}

ordered_json json_of(const runtime::KernelResources& kernel) {
  return {{"entry", kernel.entry},
          {"registers", kernel.registers},
          {"shared_bytes", kernel.shared_bytes},
          {"stack_bytes", kernel.stack_bytes},
          {"spill_store_bytes", kernel.spill_store_bytes},
          {"spill_load_bytes", kernel.spill_load_bytes}};
}

ordered_json json_of(const CompiledTarget& target, const CompiledUnit& unit) {
  ordered_json object{{"unit", unit.key.unit},
                      {"digest", unit.key.digest()},
                      {"from", unit.compiled() ? "compiler" : "cache"},
                      {"compile_ms", unit.entry.compile_ms},
                      {"bytes", unit.entry.binary->size()},
                      {"compiler", unit.entry.compiler},
                      {"path", unit.entry.path}};
  if (!target.cuda()) object["code_bytes"] = unit.code_bytes;
  if (!unit.kernels.empty()) {
    for (const auto& kernel : unit.kernels)
      object["kernels"].push_back(json_of(kernel));
  }
  if (!unit.out_path.empty()) object["out"] = unit.out_path;
  return object;
}

void print_target_json(const CompiledTarget& target) {
  ordered_json units = ordered_json::array();
  for (const CompiledUnit& unit : target.units)
    units.push_back(json_of(target, unit));
  print_json({{"target", target.request.target},
              {"spec", target.request.spec.text()},
              {"tuning", target.request.tuning.text()},
              {"compiles", target.compiles()},
              {"ms", target.wall_ms},
              {"units", std::move(units)}});
}

void print_resources(const std::vector<CompiledTarget>& targets) {
  Table table({"target", "entry", "registers", "shared", "stack", "spill stores", "spill loads"});
  bool any = false;
  for (const CompiledTarget& target : targets) {
    for (const CompiledUnit& unit : target.units) {
      for (const auto& kernel : unit.kernels) {
        any = true;
        table.add({target.request.target, kernel.entry, fmt::to_string(kernel.registers),
                   human_bytes(static_cast<std::uint64_t>(kernel.shared_bytes)),
                   human_bytes(static_cast<std::uint64_t>(kernel.stack_bytes)),
                   human_bytes(static_cast<std::uint64_t>(kernel.spill_store_bytes)),
                   human_bytes(static_cast<std::uint64_t>(kernel.spill_load_bytes))});
      }
    }
  }
  if (!any) return;
  std::printf("\n");
  table.print();
}

void print_for_people(const std::vector<CompiledTarget>& targets) {
  Table table({"target", "unit", "binary", "code", "compiled in", "where"});
  int compiles = 0;
  std::size_t units = 0;
  double wall_ms = 0;
  for (const CompiledTarget& target : targets) {
    compiles += target.compiles();
    units += target.units.size();
    wall_ms += target.wall_ms;
    for (const CompiledUnit& unit : target.units) {
      const std::string where = !unit.out_path.empty()    ? unit.out_path
                                : unit.entry.path.empty() ? "memory only"
                                                          : unit.entry.path;
      table.add({short_target(target.request.target), unit.key.unit, human_bytes(unit.entry.binary->size()),
                 target.cuda() ? "—" : human_bytes(unit.code_bytes),
                 unit.compiled() ? human_milliseconds(unit.entry.compile_ms) : "cache", where});
    }
  }
  table.print();
  print_resources(targets);
  std::printf("\n%d compiled, %zu from the cache, in %s\n", compiles,
              units - static_cast<std::size_t>(compiles), human_milliseconds(wall_ms).c_str());
}

int compile(const CompileOptions& options) {
  const std::vector<std::string> names = split_targets(options.kernel.target);
  // All of it is checked before any of it is compiled.
  for (const std::string& name : names)
    kernel_request(options.kernel, name);
  runtime::Cache cache(std::nullopt, warnings_to_stderr());
  std::vector<CompiledTarget> done;
  try {
    Progress progress(options.json);
    for (std::size_t i = 0; i < names.size(); ++i) {
      progress.say(fmt::format("compiling for {} ({} of {})", short_target(names[i]), i + 1, names.size()));
      CompiledTarget target = compile_target(options, names[i], cache);
      const bool one_binary = names.size() == 1 && target.units.size() == 1;
      if (!options.out.empty()) write_binaries(target, options.out, one_binary);
      if (options.json) print_target_json(target);
      done.push_back(std::move(target));
    }
  } catch (const Error&) {
    if (!options.json && !done.empty()) print_for_people(done);  // these are in the cache
    throw;
  }
  if (!options.json) print_for_people(done);
  return 0;
}

}  // namespace

void add_compile(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<CompileOptions>();
  CLI::App* command =
      app.add_subcommand("compile", "Compile kernels into the cache, with or without the device");
  add_kernel_options(*command, options->kernel, "one or several: sm_90a,sm_120,x86-64-v3,host");
  command->add_option("--out", options->out,
                      "write the binaries, too: a folder, or a file where there is only one");
  command->add_flag("--report", options->report,
                    "registers, shared memory and spills (CUDA; compiles once more)");
  command->add_flag("--json", options->json,
                    "one JSON object a target; compiles is 0 when all came from the cache");
  command->footer(
      "Example:\n  adamas compile --spec \"head_dim=128 group=4 budget=128\" --target x86-64-v3,sm_90a "
      "--report");
  command->callback([options, &chosen] { chosen = [options] { return compile(*options); }; });
}

}  // namespace adamas::tools
