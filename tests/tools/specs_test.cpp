// `adamas specs`: configs as the families publish them, and configs that cannot be.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "codegen/error.hpp"
#include "tests/cache/support.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/model_config.hpp"

using adamas::codegen::Error;
using adamas::tests::adamas_cli;
using adamas::tools::attention_shapes;
using adamas::tools::AttentionShape;
using nlohmann::json;

namespace {

std::vector<AttentionShape> shapes(const std::string& config, int tensor_parallel = 1, const std::string& kv_type = "") {
  return attention_shapes("config.json", json::parse(config), tensor_parallel, kv_type);
}

std::string refusal(const std::string& config, int tensor_parallel = 1) {
  try {
    shapes(config, tensor_parallel);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("families: the attention fields of their published configs") {
  // The fields that decide attention, with the values of the named models.
  const struct {
    std::string model, config;
    std::vector<std::string> specs;
    std::vector<std::size_t> layers;
    int kv_heads;
  } cases[] = {
      {"Llama 3.1 8B",
       R"({"model_type":"llama","hidden_size":4096,"num_attention_heads":32,"num_key_value_heads":8,
           "num_hidden_layers":32,"max_position_embeddings":131072,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=4 kv_type=bf16"}, {32}, 8},
      {"Llama 2 7B",
       R"({"model_type":"llama","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":32,
           "torch_dtype":"float16"})",
       {"head_dim=128 group=1 kv_type=f16"}, {32}, 32},
      {"SmolLM2 135M",
       R"({"model_type":"llama","hidden_size":576,"num_attention_heads":9,"num_key_value_heads":3,
           "num_hidden_layers":30,"torch_dtype":"bfloat16"})",
       {"head_dim=64 group=3 kv_type=bf16"}, {30}, 3},
      {"SmolLM3 3B",
       R"({"model_type":"smollm3","hidden_size":2048,"num_attention_heads":16,"num_key_value_heads":4,
           "num_hidden_layers":36,"use_sliding_window":false,"sliding_window":null,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=4 kv_type=bf16"}, {36}, 4},
      {"Qwen2.5 7B",
       R"({"model_type":"qwen2","hidden_size":3584,"num_attention_heads":28,"num_key_value_heads":4,
           "num_hidden_layers":28,"sliding_window":131072,"use_sliding_window":false,"max_window_layers":28,
           "max_position_embeddings":32768,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=7 kv_type=bf16"}, {28}, 4},
      {"Qwen3 4B: head_dim is not hidden_size / heads",
       R"({"model_type":"qwen3","hidden_size":2560,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":128,
           "num_hidden_layers":36,"sliding_window":null,"use_sliding_window":false,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=4 kv_type=bf16"}, {36}, 8},
      {"Qwen2 with windows in its upper layers",
       R"({"model_type":"qwen2","hidden_size":1024,"num_attention_heads":16,"num_hidden_layers":24,
           "sliding_window":4096,"use_sliding_window":true,"max_window_layers":20,"dtype":"bfloat16"})",
       {"head_dim=64 group=1 kv_type=bf16", "head_dim=64 group=1 kv_type=bf16 window=on"}, {20, 4}, 16},
      {"Mistral 7B v0.1",
       R"({"model_type":"mistral","hidden_size":4096,"num_attention_heads":32,"num_key_value_heads":8,
           "num_hidden_layers":32,"sliding_window":4096,"max_position_embeddings":32768,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=4 kv_type=bf16 window=on"}, {32}, 8},
      {"Mistral 7B v0.3",
       R"({"model_type":"mistral","hidden_size":4096,"num_attention_heads":32,"num_key_value_heads":8,
           "num_hidden_layers":32,"sliding_window":null,"torch_dtype":"bfloat16"})",
       {"head_dim=128 group=4 kv_type=bf16"}, {32}, 8},
      {"Gemma 2 9B",
       R"({"model_type":"gemma2","hidden_size":3584,"num_attention_heads":16,"num_key_value_heads":8,"head_dim":256,
           "num_hidden_layers":42,"sliding_window":4096,"attn_logit_softcapping":50.0,"query_pre_attn_scalar":256,
           "max_position_embeddings":8192,"torch_dtype":"float32"})",
       {"head_dim=256 group=2 kv_type=f32 soft_cap=on", "head_dim=256 group=2 kv_type=f32 soft_cap=on window=on"},
       {21, 21}, 8},
      {"Gemma 3 4B: most fields left out, the language part inside",
       R"({"model_type":"gemma3","torch_dtype":"bfloat16","text_config":{"model_type":"gemma3_text",
           "hidden_size":2560,"num_hidden_layers":34,"sliding_window":1024}})",
       {"head_dim=256 group=2 kv_type=bf16", "head_dim=256 group=2 kv_type=bf16 window=on"}, {5, 29}, 4},
      {"Phi-2",
       R"({"model_type":"phi","hidden_size":2560,"num_attention_heads":32,"num_key_value_heads":null,
           "num_hidden_layers":32,"torch_dtype":"float16"})",
       {"head_dim=80 group=1 kv_type=f16"}, {32}, 32},
      {"Phi-3.5 mini: a window that no sequence outgrows",
       R"({"model_type":"phi3","hidden_size":3072,"num_attention_heads":32,"num_key_value_heads":32,
           "num_hidden_layers":32,"sliding_window":262144,"max_position_embeddings":131072,"torch_dtype":"bfloat16"})",
       {"head_dim=96 group=1 kv_type=bf16"}, {32}, 32},
      {"gpt-oss 20B",
       R"({"model_type":"gpt_oss","hidden_size":2880,"num_attention_heads":64,"num_key_value_heads":8,"head_dim":64,
           "num_hidden_layers":4,"sliding_window":128,
           "layer_types":["sliding_attention","full_attention","sliding_attention","full_attention"]})",
       {"head_dim=64 group=8 kv_type=bf16 sink_logits=on", "head_dim=64 group=8 kv_type=bf16 sink_logits=on window=on"},
       {2, 2}, 8},
      {"layers of linear attention are left out",
       R"({"model_type":"qwen3","num_attention_heads":16,"num_key_value_heads":2,"head_dim":256,"num_hidden_layers":4,
           "layer_types":["linear_attention","linear_attention","linear_attention","full_attention"]})",
       {"head_dim=256 group=8 kv_type=bf16"}, {1}, 2},
  };
  for (const auto& [model, config, specs, layers, kv_heads] : cases) {
    CAPTURE(model);
    const auto found = shapes(config);
    REQUIRE(found.size() == specs.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].spec == specs[i]);
      CHECK(found[i].layers.size() == layers[i]);
      CHECK(found[i].kv_heads == kv_heads);
    }
  }
}

TEST_CASE("what is data of the call comes with it: scale, window, soft cap, which layers") {
  const auto found = shapes(
      R"({"model_type":"gemma2","num_hidden_layers":4,"query_pre_attn_scalar":144,"attn_logit_softcapping":30.0})");
  REQUIRE(found.size() == 2);
  CHECK(found[0].layers == std::vector<int>{1, 3});
  CHECK_FALSE(found[0].window);
  CHECK(found[1].layers == std::vector<int>{0, 2});
  CHECK(found[1].window == 4096);
  CHECK(found[1].soft_cap == 30.0);
  CHECK(found[1].scale == doctest::Approx(1.0 / 12));
  CHECK_FALSE(shapes(R"({"model_type":"gemma2","num_hidden_layers":1,"attn_logit_softcapping":null})")[0].soft_cap);
}

TEST_CASE("tensor parallelism shares heads out, and copies K/V heads where there are too few") {
  const std::string config =
      R"({"model_type":"llama","hidden_size":8192,"num_attention_heads":64,"num_key_value_heads":8,"num_hidden_layers":80})";
  CHECK(shapes(config, 4)[0].kv_heads == 2);
  CHECK(shapes(config, 4)[0].spec == "head_dim=128 group=8 kv_type=bf16");
  CHECK(shapes(config, 16)[0].kv_heads == 1);
  CHECK(shapes(config, 16)[0].spec == "head_dim=128 group=4 kv_type=bf16");
  CHECK(shapes(config, 1, "f16")[0].spec == "head_dim=128 group=8 kv_type=f16");
  CHECK(refusal(config, 3).find("tensor-parallel=3: must divide 8 K/V heads") == 0);
}

TEST_CASE("a config that cannot be is refused by key and value") {
  const std::string base = R"("model_type":"llama","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":2)";
  const struct {
    std::string config, expected;
  } cases[] = {
      {"[]", "config.json: must be a JSON object"},
      {"{}", "config.json: model_type=missing: is not a family"},
      {R"({"model_type":"mamba"})", "model_type=\"mamba\": is not a family"},
      {R"({"model_type":7})", "model_type=7: must be a text"},
      {R"({"model_type":"llama"})", "num_attention_heads=missing: must be given"},
      {"{" + base + R"(,"num_key_value_heads":5})", "num_attention_heads=32: must be a multiple of 5 K/V heads"},
      {"{" + base + R"(,"num_key_value_heads":0})", "num_key_value_heads=0: must be a positive integer"},
      {"{" + base + R"(,"num_key_value_heads":-1})", "must be a positive integer"},
      {"{" + base + R"(,"num_key_value_heads":1.5})", "must be a positive integer"},
      {"{" + base + R"(,"num_key_value_heads":99999999999999999999})", "must be a positive integer"},
      {"{" + base + R"(,"head_dim":100})", "head_dim=100: must be 16..512"},
      {"{" + base + R"(,"kv_lora_rank":512})", "latent attention"},
      {"{" + base + R"(,"layer_types":["full_attention"]})", "must list 2 layers"},
      {"{" + base + R"(,"layer_types":["full_attention","other"]})", "must hold full_attention"},
      {"{" + base + R"(,"torch_dtype":"int8"})", "torch_dtype=\"int8\": must be bfloat16"},
      {R"({"model_type":"llama","hidden_size":4096,"num_attention_heads":32,"num_hidden_layers":9999999})", "must be 1..4096"},
      {R"({"model_type":"llama","hidden_size":4097,"num_attention_heads":32,"num_hidden_layers":2})",
       "hidden_size=4097: must be a multiple of 32 heads"},
      {R"({"text_config":{"model_type":"llama"}})", "config.json: text_config: num_attention_heads"},
      {R"({"text_config":3})", "must be a JSON object"},
  };
  for (const auto& [config, expected] : cases) {
    CAPTURE(config);
    const std::string message = refusal(config);
    CAPTURE(message);
    CHECK(message.find(expected) != std::string::npos);
  }
}

TEST_CASE("specs prints a list that precompile takes, or JSON") {
  const adamas::tests::ScratchFolder folder;
  const std::string config = folder / "config.json";
  adamas::tests::write_file(config, adamas::tests::bytes_of(
      R"({"model_type":"gemma3_text","num_hidden_layers":6,"torch_dtype":"bfloat16"})"));
  const auto list = adamas_cli({"specs", "--config", config, "--with", "budget=64,128 page_size=64"});
  CHECK(list.exit_code == 0);
  CHECK(list.out ==
        "head_dim=256 group=2 kv_type=bf16 budget=64,128 page_size=64  # 1 layer (5), 8 query and 4 K/V heads, scale 0.0625\n"
        "head_dim=256 group=2 kv_type=bf16 window=on budget=64,128 page_size=64  # 5 layers (0..4), 8 query and 4 K/V "
        "heads, scale 0.0625, window 4096\n");
  const auto lines = adamas_cli({"specs", "--config", config, "--with", "budget=64,128", "--json"}).lines();
  REQUIRE(lines.size() == 4);
  CHECK(lines[3].at("window") == 4096);
  CHECK(lines[3].at("layers").size() == 5);
  CHECK(lines[3].at("spec").get<std::string>().find("budget=128") != std::string::npos);

  CHECK(adamas_cli({"specs", "--config", config, "--with", "bugdet=64"}).exit_code == 1);
  CHECK(adamas_cli({"specs", "--config", folder / "nowhere.json"}).exit_code == 1);
  adamas::tests::write_file(config, adamas::tests::bytes_of("{\"model_type\":"));
  CHECK(adamas_cli({"specs", "--config", config}).err.find("must be JSON") != std::string::npos);
  CHECK(adamas_cli({"specs"}).exit_code == 2);
}
