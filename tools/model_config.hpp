// Attention shapes of a model, read from its Hugging Face config.json.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace adamas::tools {

/// Layers of one shape: what one kernel serves.
struct AttentionShape {
  std::string spec;  ///< keys that the model decides: "head_dim=128 group=4 kv_type=bf16"
  std::vector<int> layers;
  int query_heads = 0, kv_heads = 0;  ///< of one rank
  double scale = 0;                   ///< of the logits: data of the call
  std::optional<int> window;          ///< tokens a row sees, its own included: data of the call
  std::optional<double> soft_cap;     ///< data of the call
};

/// Reads the families of Llama, Qwen, Mistral, Gemma, Phi, SmolLM and gpt-oss; layers without softmax attention
/// (linear ones) are left out.
/// @param name             the file, for errors
/// @param tensor_parallel  ranks that share the heads
/// @param kv_type          "" = the model's dtype
/// @throws codegen::Error naming file, key, value and rule
std::vector<AttentionShape> attention_shapes(const std::string& name, const nlohmann::json& config,
                                             int tensor_parallel, const std::string& kv_type);

}  // namespace adamas::tools
