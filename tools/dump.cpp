// Dumps and thresholds: see dump.hpp.
#include "tools/dump.hpp"

#include <fmt/ranges.h>

#include <charconv>
#include <filesystem>
#include <map>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/dispatch/calibrate.hpp"

namespace adamas::tools {
namespace {

using codegen::ElementType;
using codegen::Error;

[[noreturn]] void refuse(const SafetensorsFile& file, const Tensor& tensor, const std::string& rule) {
  throw Error(ADAMAS_IO_ERROR, fmt::format("{}: {}", file.path(), tensor.name),
              fmt::format("{}[{}]", dtype_name(tensor.dtype), fmt::join(tensor.shape, ", ")), rule);
}

ElementType element_type(const SafetensorsFile& file, const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF16:
      return ElementType::f16;
    case DType::kBF16:
      return ElementType::bf16;
    case DType::kF32:
      return ElementType::f32;
    default:
      refuse(file, tensor, "must be F16, BF16 or F32");
  }
}

std::vector<std::byte> bytes_of(const Tensor& tensor) { return {tensor.bytes.begin(), tensor.bytes.end()}; }

/// N of "layerN.q", or -1.
int layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "layer", kSuffix = ".q";
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return -1;
  const std::string_view digits = name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffix.size());
  int layer = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  return error == std::errc() && end == digits.data() + digits.size() ? layer : -1;
}

DumpLayer load_layer(const SafetensorsFile& file, int index) {
  const Tensor& q = file.at(fmt::format("layer{}.q", index));
  const Tensor& k = file.at(fmt::format("layer{}.k", index));
  const Tensor& v = file.at(fmt::format("layer{}.v", index));
  for (const Tensor* tensor : {&q, &k, &v}) {
    if (tensor->shape.size() != 3) refuse(file, *tensor, "must have three dimensions: rows, heads, elements");
    for (const auto extent : tensor->shape) {
      if (extent < 1 || extent > (1U << 30)) refuse(file, *tensor, "must have 1 .. 2^30 in every dimension");
    }
  }
  if (k.shape[0] != v.shape[0] || k.shape[1] != v.shape[1])
    refuse(file, v, "must have the tokens and heads of k");
  if (k.shape[2] != q.shape[2]) refuse(file, q, "must have the head_dim of k");
  if (q.shape[1] % k.shape[1] != 0) refuse(file, q, "must have a multiple of k's heads");
  if (q.shape[0] > k.shape[0]) refuse(file, q, "must not have more queries than k has tokens");
  if (k.dtype != v.dtype) refuse(file, v, "must be of k's type");
  DumpLayer layer;
  layer.index = index;
  layer.queries = static_cast<int>(q.shape[0]);
  layer.query_heads = static_cast<int>(q.shape[1]);
  layer.head_dim = static_cast<int>(q.shape[2]);
  layer.tokens = static_cast<std::int64_t>(k.shape[0]);
  layer.kv_heads = static_cast<int>(k.shape[1]);
  layer.value_dim = static_cast<int>(v.shape[2]);
  layer.q_type = element_type(file, q);
  layer.kv_type = element_type(file, k);
  layer.q = bytes_of(q);
  layer.k = bytes_of(k);
  layer.v = bytes_of(v);
  return layer;
}

std::vector<float> threshold_tensor(const SafetensorsFile& file, const std::string& name, std::size_t heads,
                                    std::size_t thresholds) {
  const Tensor& tensor = file.at(name);
  if (tensor.dtype != DType::kF32 || tensor.shape != std::vector<std::uint64_t>{heads, thresholds}) {
    refuse(file, tensor, fmt::format("must be F32[{}, {}]: K/V heads, buckets - 1", heads, thresholds));
  }
  return file.copy<float>(tensor);
}

}  // namespace

std::string DumpLayer::spec_text() const {
  return fmt::format("head_dim={} value_dim={} group={} kv_type={} q_type={}", head_dim, value_dim, group(),
                     codegen::name(kv_type), codegen::name(q_type));
}

std::vector<DumpLayer> load_dump(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  std::map<int, bool> indexes;
  for (const Tensor& tensor : file.tensors()) {
    if (const int index = layer_of(tensor.name); index >= 0) indexes[index] = true;
  }
  if (indexes.empty()) {
    throw Error(
        ADAMAS_IO_ERROR, path, "", "has no tensor named layerN.q",
        "a dump holds layerN.q [queries, heads, head_dim], layerN.k and layerN.v [tokens, K/V heads, dim]");
  }
  std::vector<DumpLayer> layers;
  for (const auto& [index, present] : indexes)
    layers.push_back(load_layer(file, index));
  return layers;
}

LayerThresholds calibrate_layer(const DumpLayer& layer, const codegen::Spec& spec) {
  auto thresholds = runtime::calibrate(spec, {.keys = layer.k.data(),
                                              .queries = layer.q.data(),
                                              .key_count = layer.tokens,
                                              .query_count = layer.queries,
                                              .kv_heads = layer.kv_heads});
  return {std::move(thresholds.key), std::move(thresholds.query)};
}

LayerThresholds load_thresholds(const SafetensorsFile& file, const DumpLayer& layer,
                                const codegen::Spec& spec) {
  const auto heads = static_cast<std::size_t>(layer.kv_heads);
  const auto count = static_cast<std::size_t>(spec.buckets - 1);
  LayerThresholds thresholds;
  thresholds.key = threshold_tensor(file, fmt::format("layer{}.key_thresholds", layer.index), heads, count);
  if (spec.estimator == codegen::Estimator::manhattan) {
    thresholds.query =
        threshold_tensor(file, fmt::format("layer{}.query_thresholds", layer.index), heads, count);
  }
  return thresholds;
}

std::string sample_path() {
  namespace fs = std::filesystem;
  constexpr const char* kName = "smollm2-135m-kjv.safetensors";
  std::error_code failed;
  fs::path folder = fs::read_symlink("/proc/self/exe", failed).parent_path();
  // Installed: <prefix>/bin beside <prefix>/share/adamas. Built: some folders below the checkout's
  // tests/data.
  for (int up = 0; up < 5 && !folder.empty(); ++up, folder = folder.parent_path()) {
    for (const fs::path& place : {folder / "share/adamas" / kName, folder / "tests/data" / kName}) {
      if (fs::is_regular_file(place, failed)) return place.string();
    }
  }
  throw Error(ADAMAS_IO_ERROR, kName, "", "the bundled sample was not found beside this program",
              "run `adamas eval FILE` on a dump of your own");
}

}  // namespace adamas::tools
