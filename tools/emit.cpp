// `adamas emit`: the source text that a Spec becomes, before any compiler sees it.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <span>

#include "codegen/target.hpp"
#include "tools/cli.hpp"
#include "tools/kernel_request.hpp"

namespace adamas::tools {
namespace {

struct EmitOptions {
  KernelOptions kernel;
  std::string out;
  bool json = false;
};

void write_text(const std::string& path, const std::string& text) {
  write_output(path, std::as_bytes(std::span(text)));
}

int emit(const EmitOptions& options) {
  const KernelRequest request = kernel_request(options.kernel, options.kernel.target);
  const std::vector<codegen::Unit> units = chosen_units(options.kernel, request);
  const codegen::Generator& generator = codegen::generator_for(request.target);
  const std::string suffix = codegen::is_cuda_target(request.target) ? ".cu" : ".cc";
  if (!options.out.empty()) make_output_folder(options.out);

  for (const codegen::Unit unit : units) {
    const std::string name(codegen::name(unit));
    const std::string text = generator.emit(request.spec, request.tuning, request.target, unit);
    std::string path;
    if (!options.out.empty()) {
      path = (std::filesystem::path(options.out) / (name + suffix)).string();
      write_text(path, text);
    }
    if (options.json) {
      nlohmann::ordered_json object{{"unit", name},
                                    {"target", request.target},
                                    {"spec", request.spec.text()},
                                    {"tuning", request.tuning.text()},
                                    {"bytes", text.size()}};
      if (path.empty()) {
        object["source"] = text;
      } else {
        object["path"] = path;
      }
      print_json(object);
    } else if (!path.empty()) {
      std::printf("%s\n", path.c_str());
    } else {
      // Units are compiled apart and repeat each other's declarations: several on one stream need a border.
      if (units.size() > 1) std::printf("// ==== unit %s ====\n", name.c_str());
      std::fwrite(text.data(), 1, text.size(), stdout);
    }
  }
  return 0;
}

}  // namespace

void add_emit(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<EmitOptions>();
  CLI::App* command =
      app.add_subcommand("emit", "Print the generated source text; needs neither GPU nor compiler");
  add_kernel_options(*command, options->kernel, "sm_90a, x86-64-v3, host, ...");
  command->add_option("--out", options->out, "write one file a unit into this folder instead");
  command->add_flag("--json", options->json, "one JSON object a unit");
  command->footer(
      "Example:\n  adamas emit --spec \"head_dim=128 group=4 budget=128 kv_type=bf16\" --target sm_90a "
      "--unit select");
  command->callback([options, &chosen] { chosen = [options] { return emit(*options); }; });
}

}  // namespace adamas::tools
