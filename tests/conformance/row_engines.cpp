// Engines whose caches are rows or cells without pages: see engines.hpp.
#include <algorithm>

#include "tests/conformance/engines.hpp"

namespace adamas::tests {
namespace {

constexpr int kHeads = Workload::kKvHeads;

/// A row of `capacity` tokens for each sequence, its tokens from `starts` on.
Handover rows_of(const Workload& workload, std::int64_t capacity, const std::vector<std::int32_t>& starts) {
  Handover handover{.spec = "cache_form=contiguous",
                    .capacity = {.max_batch = workload.batch(), .kv_heads = kHeads, .max_tokens = capacity},
                    .lengths = workload.lengths,
                    .starts = starts};
  for (int b = 0; b < workload.batch(); ++b) {
    auto& own = handover.slots.emplace_back();
    for (int p = 0; p < workload.lengths[static_cast<std::size_t>(b)]; ++p) {
      own.push_back(b * capacity + (starts.empty() ? 0 : starts[static_cast<std::size_t>(b)]) + p);
      handover.slot_mapping.push_back(static_cast<std::int32_t>(own.back()));
    }
  }
  return handover;
}

/// llama.cpp, a stream a sequence: K and V [D * Hkv, cells, streams] with the first dimension innermost
/// (flash attention's V, which is not transposed); in C order [streams, cells, Hkv, D]. q8_0: D counts blocks
/// of 32.
Handover ggml_streams(const Context& context, const Workload& workload) {
  constexpr std::int64_t kCells = 256;
  const std::int64_t unit = codegen::storage_unit(workload.spec.kv_type).elements;
  HostArray key(workload, {workload.batch(), kCells, kHeads, workload.spec.head_dim / unit});
  HostArray value(workload, {workload.batch(), kCells, kHeads, workload.spec.value_dim / unit});
  Handover handover = rows_of(workload, kCells, {});
  for (int b = 0; b < workload.batch(); ++b) {
    for (int p = 0; p < workload.lengths[static_cast<std::size_t>(b)]; ++p) {
      for (int h = 0; h < kHeads; ++h) {
        key.put({b, p, h, 0}, workload.key(b, p, h));
        value.put({b, p, h, 0}, workload.value(b, p, h));
      }
    }
  }
  handover.cache.key = handover.keep(context, key);
  handover.cache.value = handover.keep(context, value);
  handover.cache.key_page_stride = key.stride(0);
  handover.cache.key_token_stride = key.stride(1);
  handover.cache.key_head_stride = key.stride(2);
  handover.cache.value_page_stride = value.stride(0);
  handover.cache.value_token_stride = value.stride(1);
  handover.cache.value_head_stride = value.stride(2);
  return handover;
}

/// llama.cpp with one stream for all sequences: their tokens lie in whatever cells were free, and the host's
/// cell list of each sequence, in the order of positions, is a table of slots.
Handover ggml_unified(const Context& context, const Workload& workload) {
  const std::int64_t unit = codegen::storage_unit(workload.spec.kv_type).elements;
  std::int64_t cells = 21;
  for (const int length : workload.lengths)
    cells += length;
  const auto order = shuffled(cells, 31);
  HostArray key(workload, {cells, kHeads, workload.spec.head_dim / unit});
  HostArray value(workload, {cells, kHeads, workload.spec.value_dim / unit});
  Handover handover{.spec = "cache_form=slots",
                    .capacity = {.max_batch = workload.batch(),
                                 .kv_heads = kHeads,
                                 .max_tokens = workload.longest(),
                                 .max_slots = cells},
                    .lengths = workload.lengths};
  const auto columns = static_cast<std::size_t>(workload.longest());
  std::vector<std::int32_t> cells_of(workload.lengths.size() * columns, -1);
  std::size_t next = 0;
  for (int b = 0; b < workload.batch(); ++b) {
    auto& own = handover.slots.emplace_back();
    for (int p = 0; p < workload.lengths[static_cast<std::size_t>(b)]; ++p) {
      const std::int32_t cell = order[next++];
      own.push_back(cell);
      handover.slot_mapping.push_back(cell);
      cells_of[static_cast<std::size_t>(b) * columns + static_cast<std::size_t>(p)] = cell;
      for (int h = 0; h < kHeads; ++h) {
        key.put({cell, h, 0}, workload.key(b, p, h));
        value.put({cell, h, 0}, workload.value(b, p, h));
      }
    }
  }
  handover.cache.key = handover.keep(context, key);
  handover.cache.value = handover.keep(context, value);
  handover.cache.key_token_stride = key.stride(0);
  handover.cache.key_head_stride = key.stride(1);
  handover.cache.value_token_stride = value.stride(0);
  handover.cache.value_head_stride = value.stride(1);
  handover.cache.table = handover.keep(context, cells_of);
  handover.cache.table_stride = static_cast<std::int64_t>(columns);
  return handover;
}

/// [B, Hkv, S, D]: Hugging Face's caches and ONNX Runtime's BNSH.
Handover batch_heads_tokens(const Context& context, const Workload& workload, std::int64_t capacity,
                            const std::vector<std::int32_t>& starts) {
  HostArray key(workload, {workload.batch(), kHeads, capacity, workload.spec.head_dim});
  HostArray value(workload, {workload.batch(), kHeads, capacity, workload.spec.value_dim});
  Handover handover = rows_of(workload, capacity, starts);
  for (int b = 0; b < workload.batch(); ++b) {
    const std::int32_t start = starts.empty() ? 0 : starts[static_cast<std::size_t>(b)];
    for (int p = 0; p < workload.lengths[static_cast<std::size_t>(b)]; ++p) {
      for (int h = 0; h < kHeads; ++h) {
        key.put({b, h, start + p, 0}, workload.key(b, p, h));
        value.put({b, h, start + p, 0}, workload.value(b, p, h));
      }
    }
  }
  handover.cache.key = handover.keep(context, key);
  handover.cache.value = handover.keep(context, value);
  handover.cache.key_page_stride = key.stride(0);
  handover.cache.key_head_stride = key.stride(1);
  handover.cache.key_token_stride = key.stride(2);
  handover.cache.value_page_stride = value.stride(0);
  handover.cache.value_head_stride = value.stride(1);
  handover.cache.value_token_stride = value.stride(2);
  return handover;
}

/// Hugging Face transformers, a static cache, a batch padded on the left: all rows end at the same position.
Handover transformers(const Context& context, const Workload& workload) {
  std::vector<std::int32_t> padding;
  for (const std::int32_t length : workload.lengths)
    padding.push_back(workload.longest() - length);
  return batch_heads_tokens(context, workload, workload.longest() + 56, padding);
}

/// ONNX Runtime's GroupQueryAttention: present key and value, padded on the right; seqlens_k is the length
/// less one.
Handover onnx_group_query(const Context& context, const Workload& workload) {
  Handover handover = batch_heads_tokens(context, workload, workload.longest() + 1, {});
  std::vector<std::int32_t> seqlens_k;
  for (const std::int32_t length : workload.lengths)
    seqlens_k.push_back(length - 1);
  for (std::size_t b = 0; b < seqlens_k.size(); ++b)
    handover.lengths[b] = seqlens_k[b] + 1;
  return handover;
}

}  // namespace

const std::vector<Engine>& row_engines() {
  static const std::vector<Engine> engines{
      {"ggml, streams", "head_dim=128 group=4 budget=32", ggml_streams},
      {"ggml, streams, q8_0", "head_dim=128 group=4 budget=32 kv_type=q8_0", ggml_streams, false},
      {"ggml, unified", "head_dim=64 group=3 budget=32", ggml_unified},
      {"ggml, unified, q8_0", "head_dim=96 group=1 budget=32 kv_type=q8_0", ggml_unified, false},
      {"Hugging Face transformers", "head_dim=128 group=4 budget=32 kv_type=bf16", transformers},
      {"ONNX Runtime, GroupQueryAttention", "head_dim=96 group=3 budget=32", onnx_group_query},
  };
  return engines;
}

}  // namespace adamas::tests
