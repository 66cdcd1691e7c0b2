// Attention shapes from config.json: see model_config.hpp.
#include "tools/model_config.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/spec.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;
using nlohmann::json;

/// Which layers see a window only, where the config has no list of layer types.
enum class Windows {
  none,
  all,            ///< if sliding_window is given
  even,           ///< layers 0, 2, 4, ...
  all_but_nth,    ///< every sliding_window_pattern-th layer sees everything
  after_switch,   ///< use_sliding_window, from layer max_window_layers on
};

struct Family {
  Windows windows;
  int query_heads = 0, kv_heads = 0, head_dim = 0;  ///< what the family's configs leave out; 0: they may not
  int sliding_window = 0;
  double soft_cap = 0;
  bool sink_logits = false;
};

const std::map<std::string, Family, std::less<>> kFamilies{
    {"llama", {Windows::none}},
    {"smollm3", {Windows::after_switch}},
    {"qwen2", {Windows::after_switch}},
    {"qwen2_moe", {Windows::after_switch}},
    {"qwen3", {Windows::after_switch}},
    {"qwen3_moe", {Windows::after_switch}},
    {"mistral", {Windows::all}},
    {"mixtral", {Windows::all}},
    {"ministral", {Windows::all}},
    {"gemma", {Windows::none, 16, 16, 256}},
    {"gemma2", {Windows::even, 8, 4, 256, 4096, 50.0}},
    {"gemma3_text", {Windows::all_but_nth, 8, 4, 256, 4096}},
    {"gemma3", {Windows::all_but_nth, 8, 4, 256, 4096}},
    {"phi", {Windows::none}},
    {"phi3", {Windows::all}},
    {"phimoe", {Windows::all}},
    {"gpt_oss", {Windows::even, 64, 8, 64, 128, 0, true}},
};

/// Typed access to one object of the config, with errors that name file and key.
class Reader {
 public:
  Reader(std::string name, const json& object) : name_(std::move(name)), object_(object) {
    if (!object.is_object()) throw Error(ADAMAS_IO_ERROR, name_, "", "must be a JSON object: a model's config.json");
  }

  bool has(const char* key) const {
    const auto found = object_.find(key);
    return found != object_.end() && !found->is_null();
  }

  /// Named, be it as null: what is left out has the family's value.
  bool mentions(const char* key) const { return object_.contains(key); }

  [[noreturn]] void refuse(const char* key, const std::string& rule, const std::string& hint = {}) const {
    throw Error(ADAMAS_INVALID_ARGUMENT, name_ + ": " + key, has(key) ? object_.at(key).dump() : "missing", rule,
                hint);
  }

  /// @param missing  what an absent key means; 0: it must be there
  int count(const char* key, int missing) const {
    if (!has(key)) {
      if (missing == 0) refuse(key, "must be given");
      return missing;
    }
    constexpr std::int64_t kMost = 1 << 24;
    const json& value = object_.at(key);
    if (!value.is_number_integer() || value < 1 || value > kMost) refuse(key, "must be a positive integer");
    return value.get<int>();
  }

  double number(const char* key) const {
    const json& value = object_.at(key);
    if (!value.is_number() || !(value.get<double>() > 0)) refuse(key, "must be a positive number");
    return value.get<double>();
  }

  bool flag(const char* key, bool missing) const {
    if (!has(key)) return missing;
    if (!object_.at(key).is_boolean()) refuse(key, "must be true or false");
    return object_.at(key).get<bool>();
  }

  std::string text(const char* key) const {
    if (!has(key)) return {};
    if (!object_.at(key).is_string()) refuse(key, "must be a text");
    return object_.at(key).get<std::string>();
  }

  const json& at(const char* key) const { return object_.at(key); }

 private:
  std::string name_;
  const json& object_;
};

const Family& family_of(const Reader& config) {
  const std::string type = config.text("model_type");
  const auto found = kFamilies.find(type);
  if (found == kFamilies.end()) {
    std::string known;
    for (const auto& [name, family] : kFamilies)
      known += (known.empty() ? "" : ", ") + name;
    config.refuse("model_type", "is not a family whose attention is known here: " + known,
                  "write the Spec by hand: head_dim, group, kv_type");
  }
  return found->second;
}

/// For each layer whether it sees a window only; nothing for layers without softmax attention.
std::vector<std::optional<bool>> windowed_layers(const Reader& config, const Family& family) {
  constexpr int kMostLayers = 4096;
  const int layers = config.count("num_hidden_layers", 0);
  if (layers > kMostLayers) config.refuse("num_hidden_layers", fmt::format("must be 1..{}", kMostLayers));
  std::vector<std::optional<bool>> windowed(static_cast<std::size_t>(layers), false);
  if (config.has("layer_types")) {
    const json& types = config.at("layer_types");
    if (!types.is_array() || types.size() != windowed.size())
      config.refuse("layer_types", fmt::format("must list {} layers", layers));
    for (std::size_t i = 0; i < windowed.size(); ++i) {
      if (types[i] == "full_attention") continue;
      if (types[i] == "sliding_attention") {
        windowed[i] = true;
      } else if (types[i] == "linear_attention") {
        windowed[i].reset();
      } else {
        config.refuse("layer_types", "must hold full_attention, sliding_attention or linear_attention");
      }
    }
    return windowed;
  }
  const int pattern = family.windows == Windows::all_but_nth ? config.count("sliding_window_pattern", 6) : 0;
  const bool switched_on = family.windows == Windows::after_switch && config.flag("use_sliding_window", false);
  const int first = switched_on && config.has("max_window_layers") && config.at("max_window_layers") != 0
                        ? config.count("max_window_layers", 0)
                        : 0;
  for (int i = 0; i < layers; ++i) {
    auto& here = windowed[static_cast<std::size_t>(i)];
    switch (family.windows) {
      case Windows::none:
        break;
      case Windows::all:
        here = true;
        break;
      case Windows::even:
        here = i % 2 == 0;
        break;
      case Windows::all_but_nth:
        here = (i + 1) % pattern != 0;
        break;
      case Windows::after_switch:
        here = switched_on && i >= first;
        break;
    }
  }
  return windowed;
}

std::string kv_type_of(const Reader& config, const Reader& whole) {
  for (const Reader* reader : {&config, &whole}) {
    for (const char* key : {"dtype", "torch_dtype"}) {
      const std::string type = reader->text(key);
      if (type == "bfloat16") return "bf16";
      if (type == "float16") return "f16";
      if (type == "float32") return "f32";
      if (!type.empty()) reader->refuse(key, "must be bfloat16, float16 or float32", "--kv-type names the cache's");
    }
  }
  return "bf16";  // what these families are published in
}

/// Heads of one rank. K/V heads fewer than ranks are kept by several.
std::pair<int, int> heads_of_rank(const Reader& config, int query_heads, int kv_heads, int ranks) {
  if (query_heads % kv_heads != 0)
    config.refuse("num_attention_heads", fmt::format("must be a multiple of {} K/V heads", kv_heads));
  const bool shared_out = kv_heads % ranks == 0 || (ranks % kv_heads == 0 && query_heads % ranks == 0);
  if (!shared_out)
    throw Error(ADAMAS_INVALID_ARGUMENT, "tensor-parallel", fmt::to_string(ranks),
                fmt::format("must divide {} K/V heads, or be a multiple of them that divides {} query heads", kv_heads,
                            query_heads));
  return {query_heads / ranks, std::max(kv_heads / ranks, 1)};
}

}  // namespace

std::vector<AttentionShape> attention_shapes(const std::string& name, const json& whole_json, int tensor_parallel,
                                             const std::string& kv_type) {
  const Reader whole(name, whole_json);
  // Models that also see or hear keep their language part's config inside.
  const bool nested = whole.has("text_config");
  const Reader config = nested ? Reader(name + ": text_config", whole.at("text_config")) : whole;
  if (config.has("kv_lora_rank"))
    config.refuse("kv_lora_rank", "means latent attention, whose cache has no keys of a head");
  const Family& family = family_of(config);

  const int query_heads = config.count("num_attention_heads", family.query_heads);
  const int kv_heads = config.count("num_key_value_heads", family.kv_heads != 0 ? family.kv_heads : query_heads);
  int head_dim = family.head_dim;
  if (config.has("head_dim")) {
    head_dim = config.count("head_dim", 0);
  } else if (head_dim == 0) {
    const int hidden = config.count("hidden_size", 0);
    if (hidden % query_heads != 0) config.refuse("hidden_size", fmt::format("must be a multiple of {} heads", query_heads));
    head_dim = hidden / query_heads;
  }
  const auto [rank_query_heads, rank_kv_heads] = heads_of_rank(config, query_heads, kv_heads, tensor_parallel);

  AttentionShape common;
  common.query_heads = rank_query_heads;
  common.kv_heads = rank_kv_heads;
  common.scale =
      1 / std::sqrt(config.has("query_pre_attn_scalar") ? config.number("query_pre_attn_scalar") : head_dim);
  if (config.has("attn_logit_softcapping"))
    common.soft_cap = config.number("attn_logit_softcapping");
  else if (family.soft_cap > 0 && !config.mentions("attn_logit_softcapping"))
    common.soft_cap = family.soft_cap;
  common.spec = fmt::format("head_dim={} group={} kv_type={}", head_dim, rank_query_heads / rank_kv_heads,
                            kv_type.empty() ? kv_type_of(config, whole) : kv_type);
  if (common.soft_cap) common.spec += " soft_cap=on";
  if (family.sink_logits) common.spec += " sink_logits=on";
  codegen::Spec::parse(common.spec);

  std::optional<int> window;
  if (config.has("sliding_window"))
    window = config.count("sliding_window", 0);
  else if (family.sliding_window != 0)
    window = family.sliding_window;
  // One that no sequence outgrows is none.
  if (window && config.has("max_position_embeddings") && *window >= config.count("max_position_embeddings", 0))
    window.reset();

  AttentionShape full = common, sliding = common;
  sliding.window = window;
  sliding.spec += " window=on";
  const auto windowed = windowed_layers(config, family);
  for (std::size_t i = 0; i < windowed.size(); ++i)
    if (windowed[i]) (*windowed[i] && window ? sliding : full).layers.push_back(static_cast<int>(i));
  std::vector<AttentionShape> shapes;
  for (AttentionShape* shape : {&full, &sliding})
    if (!shape->layers.empty()) shapes.push_back(std::move(*shape));
  return shapes;
}

}  // namespace adamas::tools
