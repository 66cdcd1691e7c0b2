// A q/k/v dump: what attention saw in one layer of a real model, after RoPE. Layout of the bundled sample:
// `layerN.q` [queries, query heads, head_dim], `layerN.k` [tokens, K/V heads, head_dim], `layerN.v` [tokens,
// K/V heads, value_dim]; query i sits at position tokens - queries + i and sees tokens 0 .. its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "codegen/spec.hpp"
#include "tools/safetensors.hpp"

namespace adamas::tools {

struct DumpLayer {
  int index = 0;  ///< N of layerN
  int head_dim = 0, value_dim = 0, query_heads = 0, kv_heads = 0;
  int queries = 0;
  std::int64_t tokens = 0;
  codegen::ElementType q_type{}, kv_type{};
  std::vector<std::byte> q, k, v;  ///< dense, as stored

  int group() const { return query_heads / kv_heads; }
  std::int64_t visible(int query) const { return tokens - queries + query + 1; }
  /// The Spec keys that the layer decides.
  std::string spec_text() const;
};

/// All layers of a file, in rising order. @throws codegen::Error(ADAMAS_IO_ERROR) naming file, tensor and
/// rule.
std::vector<DumpLayer> load_dump(const std::string& path);

/// Thresholds of one layer: [K/V heads, buckets - 1] each; `query` may be empty.
struct LayerThresholds {
  std::vector<float> key, query;
};

/// From the layer's own keys and queries.
LayerThresholds calibrate_layer(const DumpLayer& layer, const codegen::Spec& spec);
/// From a thresholds file. @throws codegen::Error when the layer is missing or its shape does not fit.
LayerThresholds load_thresholds(const SafetensorsFile& file, const DumpLayer& layer,
                                const codegen::Spec& spec);

/// The bundled sample, beside the program in a build tree or an installation. @throws codegen::Error.
std::string sample_path();

}  // namespace adamas::tools
