// `adamas calibrate`: thresholds of every layer of a dump, as a safetensors file.
#include <memory>
#include <span>

#include "codegen/format.hpp"
#include "tools/cli.hpp"
#include "tools/dump.hpp"

namespace adamas::tools {
namespace {

struct Options {
  std::string file, out, model, text;
  int buckets = 4;
  bool json = false;
};

int run(const Options& options) {
  Progress progress(options.json);
  progress.say("reading " + options.file);
  const auto layers = load_dump(options.file);

  std::vector<LayerThresholds> thresholds;
  for (const DumpLayer& layer : layers) {
    progress.say(fmt::format("layer {}", layer.index));
    const auto spec = codegen::Spec::parse(fmt::format("{} buckets={}", layer.spec_text(), options.buckets));
    thresholds.push_back(calibrate_layer(layer, spec));
  }
  progress.say("");

  std::vector<TensorData> tensors;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const std::vector<std::uint64_t> shape{static_cast<std::uint64_t>(layers[i].kv_heads),
                                           static_cast<std::uint64_t>(options.buckets - 1)};
    const auto add = [&](const char* kind, const std::vector<float>& values) {
      tensors.push_back({fmt::format("layer{}.{}_thresholds", layers[i].index, kind), DType::kF32, shape,
                         std::as_bytes(std::span(values))});
    };
    add("key", thresholds[i].key);
    add("query", thresholds[i].query);
  }
  write_safetensors(
      options.out, tensors,
      {{"model", options.model}, {"text", options.text}, {"buckets", fmt::to_string(options.buckets)}});

  if (options.json) {
    print_json({{"out", options.out}, {"layers", layers.size()}, {"buckets", options.buckets}});
    return 0;
  }
  Table table({"layer", "K/V head", "largest key threshold", "largest query threshold"});
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (int head = 0; head < layers[i].kv_heads; ++head) {
      const auto last = static_cast<std::size_t>(head + 1) * (options.buckets - 1) - 1;
      table.add({fmt::to_string(layers[i].index), fmt::to_string(head),
                 fmt::format("{:.4f}", thresholds[i].key[last]),
                 fmt::format("{:.4f}", thresholds[i].query[last])});
    }
  }
  table.print();
  fmt::print("written to {}\n", options.out);
  return 0;
}

}  // namespace

void add_calibrate(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("calibrate", "Thresholds of every layer from a q/k/v dump");
  command->add_option("FILE", options->file, "safetensors with layerN.q, layerN.k, layerN.v")->required();
  command->add_option("--out", options->out, "thresholds file to write")->required();
  command->add_option("--buckets", options->buckets, "2, 4, 8 or 16")
      ->check(CLI::IsMember({2, 4, 8, 16}))
      ->capture_default_str();
  command->add_option("--model", options->model, "name of the model, kept in the file");
  command->add_option("--text", options->text, "name of the text, kept in the file");
  command->add_flag("--json", options->json, "one JSON object");
  command->footer(
      "Example:\n  adamas calibrate dump.safetensors --out thresholds.safetensors --model SmolLM2-135M");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace adamas::tools
