// `adamas eval` and `adamas demo`: accuracy and time of sparse decode on a dump of a real model, as a table
// or JSON.
#include <cstdio>
#include <map>
#include <memory>

#include "codegen/format.hpp"
#include "tools/cli.hpp"
#include "tools/evaluate.hpp"

namespace adamas::tools {
namespace {

struct Options {
  EvalOptions eval;
  bool json = false;
};

std::string kernels_text(const EvalRow& row) {
  if (row.compiles > 0) return fmt::format("compiled in {:.0f} ms", row.compile_ms);
  return fmt::format("from cache in {:.1f} ms", row.load_ms);
}

std::string megabytes(double bytes) { return bytes > 0 ? fmt::format("{:.2f}", bytes / 1e6) : "-"; }

nlohmann::ordered_json json_of(const EvalRow& row) {
  nlohmann::ordered_json object{{"layer", row.layer},
                                {"estimator", row.estimator},
                                {"budget", row.budget},
                                {"recall", row.accuracy.recall},
                                {"mass", row.accuracy.mass},
                                {"rel_err", row.accuracy.rel_err},
                                {"us", nullptr},
                                {"dense_us", row.dense_us},
                                {"speedup", nullptr},
                                {"bytes", nullptr},
                                {"dense_bytes", row.dense_bytes},
                                {"compiles", row.compiles},
                                {"compile_ms", row.compile_ms},
                                {"load_ms", row.load_ms},
                                {"device", row.device}};
  if (row.us > 0) {
    object["us"] = row.us;
    object["speedup"] = row.dense_us / row.us;
    object["bytes"] = row.bytes;
  }
  return object;
}

void describe(const EvalHeader& header) {
  fmt::print("device     {} ({})\n", header.device, header.device_name);
  for (const DumpLayer& layer : header.layers) {
    fmt::print("layer {:<4} {} queries over {} tokens, {} query heads, {} K/V heads, head_dim {}, {}\n",
               layer.index, layer.queries, layer.tokens, layer.query_heads, layer.kv_heads, layer.head_dim,
               codegen::name(layer.kv_type));
  }
}

int run(const Options& options) {
  Progress progress(options.json);
  Table table({"layer", "estimator", "budget", "recall", "mass", "rel_err", "us", "dense us", "speed-up",
               "MB read", "dense MB", "kernels"});
  EvalHeader header;
  int compiles = 0;
  bool dense_is_faster = false;
  evaluate(
      options.eval, [&](const EvalHeader& found) { header = found; },
      [&](const EvalRow& row) {
        if (options.json) return print_json(json_of(row));
        compiles += row.compiles;
        dense_is_faster = dense_is_faster || row.us > row.dense_us;
        table.add({fmt::to_string(row.layer), row.estimator, fmt::to_string(row.budget),
                   fmt::format("{:.4f}", row.accuracy.recall), fmt::format("{:.4f}", row.accuracy.mass),
                   fmt::format("{:.4f}", row.accuracy.rel_err),
                   row.us > 0 ? fmt::format("{:.1f}", row.us) : "-", fmt::format("{:.1f}", row.dense_us),
                   row.us > 0 ? fmt::format("{:.2f}x", row.dense_us / row.us) : "-", megabytes(row.bytes),
                   megabytes(row.dense_bytes), kernels_text(row)});
      },
      [&](const std::string& text) { progress.say(text); });
  if (options.json) return 0;
  progress.say("");
  describe(header);
  fmt::print("\n");
  table.print();
  fmt::print(
      "\nrecall   share of the tokens with the largest exact logits that was selected\n"
      "mass     exact softmax probability on the selected tokens\n"
      "rel_err  error of the output against dense attention, L2 over L2\n"
      "us       one decode step of one query over all heads of the layer, median; steps back to back, on a "
      "GPU from a CUDA graph, cache warm\n"
      "MB read  codes of all tokens, and K and V of the selected ones\n");
  if (dense_is_faster) {
    fmt::print(
        "dense is faster here: this device reads all of so few tokens sooner than it chooses among them; adamas bench "
        "--device {}\n--crossover says from which length on choosing pays, and which dense_below follows\n",
        header.device);
  }
  fmt::print("{}\n",
             compiles > 0
                 ? fmt::format("{} kernels were compiled; the next run finds them in the cache", compiles)
                 : "nothing was compiled: all kernels came from the cache");
  return 0;
}

void add_common(CLI::App* command, const std::shared_ptr<Options>& options) {
  command->add_option("--budget", options->eval.budgets, "tokens a selection may attend")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command
      ->add_option("--estimator", options->eval.estimators,
                   "exact = the ceiling: tokens by their exact logits")
      ->delimiter(',')
      ->check(CLI::IsMember({"manhattan", "dot", "exact"}))
      ->capture_default_str();
  command->add_option("--spec", options->eval.spec, "further Spec keys, such as \"buckets=8 scope=kv_head\"");
  command->add_option("--device", options->eval.device, "auto, cpu or cuda:N")->capture_default_str();
  command->add_flag("--json", options->json, "one JSON object a line");
}

}  // namespace

void add_eval(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("eval", "Accuracy and time of sparse decode on a q/k/v dump of a model");
  command->add_option("FILE", options->eval.file, "safetensors with layerN.q, layerN.k, layerN.v")
      ->required();
  add_common(command, options);
  command->add_option("--thresholds", options->eval.thresholds,
                      "file from `adamas calibrate`; without it the dump calibrates itself");
  command->footer(
      "Example:\n  adamas eval dump.safetensors --budget 64,128 --estimator dot,exact --device cpu");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

void add_demo(CLI::App& app, Action& chosen) {
  const auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("demo", "`eval` on the bundled sample of a real model, and what it shows");
  add_common(command, options);
  command->footer("Example:\n  adamas demo --device cpu");
  command->callback([options, &chosen] {
    chosen = [options] {
      options->eval.file = sample_path();
      if (!options->json) {
        fmt::print(
            "Sparse decode on real data: q, k, v of layer 14 of SmolLM2-135M-Instruct reading the King James "
            "Bible.\n"
            "Each of the last queries attends to `budget` tokens, chosen on 2-bit codes, in place of all it "
            "sees.\n\n");
        std::fflush(stdout);
      }
      return run(*options);
    };
  });
}

}  // namespace adamas::tools
