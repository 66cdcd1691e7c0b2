// `adamas specs`: the Specs that a host needs for a model, from its config.json: a file for `precompile`.
#include <memory>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "tools/cli.hpp"
#include "tools/kernel_request.hpp"
#include "tools/model_config.hpp"
#include "tools/spec_list.hpp"

namespace adamas::tools {
namespace {

struct SpecsOptions {
  std::string config, with, kv_type;
  int tensor_parallel = 1;
  bool json = false;
};

/// What a person wants to know about a line: "32 layers (0..31), 32 query heads, 8 K/V heads, scale 0.0884".
std::string remark(const AttentionShape& shape) {
  std::string text = fmt::format("{} {} ({}{}), {} query and {} K/V {}, scale {:.4g}", shape.layers.size(),
                                 shape.layers.size() == 1 ? "layer" : "layers", shape.layers.front(),
                                 shape.layers.size() == 1 ? "" : fmt::format("..{}", shape.layers.back()),
                                 shape.query_heads, shape.kv_heads, shape.kv_heads == 1 ? "head" : "heads",
                                 shape.scale);
  if (shape.window) text += fmt::format(", window {}", *shape.window);
  if (shape.soft_cap) text += fmt::format(", soft cap {:g}", *shape.soft_cap);
  return text;
}

int specs(const SpecsOptions& options) {
  const std::string text = read_text("config", options.config);
  const auto config = nlohmann::json::parse(text, nullptr, false);
  if (config.is_discarded())
    throw codegen::Error(ADAMAS_IO_ERROR, "config", options.config, "must be JSON: a model's config.json");
  const auto shapes = attention_shapes(options.config, config, options.tensor_parallel, options.kv_type);
  for (const AttentionShape& shape : shapes) {
    const std::string line = options.with.empty() ? shape.spec : shape.spec + " " + options.with;
    const auto meant = parse_spec_list("--with", line);  // refused here, not when the list is used
    if (options.json) {
      for (const codegen::Spec& spec : meant) {
        nlohmann::ordered_json object{{"spec", spec.text()},
                                      {"layers", shape.layers},
                                      {"query_heads", shape.query_heads},
                                      {"kv_heads", shape.kv_heads},
                                      {"scale", shape.scale}};
        if (shape.window) object["window"] = *shape.window;
        if (shape.soft_cap) object["soft_cap"] = *shape.soft_cap;
        print_json(object);
      }
    } else {
      std::printf("%s  # %s\n", line.c_str(), remark(shape).c_str());
    }
  }
  return 0;
}

}  // namespace

void add_specs(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<SpecsOptions>();
  CLI::App* command = app.add_subcommand("specs", "The Specs a model needs, from its Hugging Face config.json");
  command->add_option("--config", options->config, "config.json of a Llama, Qwen, Mistral, Gemma, Phi, SmolLM or "
                      "gpt-oss model (-: standard input)")->required();
  command->add_option("--with", options->with,
                      "what the host decides, added to each line: \"budget=128,256 page_size=64\"");
  command->add_option("--kv-type", options->kv_type, "type of the K/V cache (default: the model's)");
  command->add_option("--tensor-parallel", options->tensor_parallel, "ranks that share the heads (default: 1)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--json", options->json, "one JSON object a Spec, with its layers, heads and scale");
  command->footer("The output is a file for precompile --specs.\n\n"
                  "Example:\n  adamas specs --config config.json --with \"budget=128 page_size=64\"");
  command->callback([options, &chosen] { chosen = [options] { return specs(*options); }; });
}

}  // namespace adamas::tools
