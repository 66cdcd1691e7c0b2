// Engines whose caches are pages: see engines.hpp.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/conformance/engines.hpp"

namespace adamas::tests {
namespace {

constexpr int kHeads = Workload::kKvHeads;

std::int64_t blocks_of(std::int64_t tokens, std::int64_t block) { return (tokens + block - 1) / block; }

/// An engine's allocator of blocks: which ones each sequence has, in no order. Some are free.
struct Blocks {
  Blocks(const Workload& workload, std::int64_t block_tokens, std::int64_t free_blocks, std::uint64_t seed)
      : tokens(block_tokens), count(free_blocks) {
    for (const int length : workload.lengths)
      count += blocks_of(length, tokens);
    const auto order = shuffled(count, seed);
    std::size_t next = 0;
    for (const int length : workload.lengths) {
      const auto own = static_cast<std::size_t>(blocks_of(length, tokens));
      of_sequence.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(next),
                               order.begin() + static_cast<std::ptrdiff_t>(next + own));
      next += own;
    }
  }
  std::int64_t block(int b, int p) const {
    return of_sequence[static_cast<std::size_t>(b)][static_cast<std::size_t>(p / tokens)];
  }
  std::int64_t token(int p) const { return p % tokens; }
  std::int64_t slot(int b, int p) const { return block(b, p) * tokens + token(p); }

  /// [batch, columns], the rest `padding`.
  std::vector<std::int32_t> table(std::int64_t columns, std::int32_t padding) const {
    std::vector<std::int32_t> all(of_sequence.size() * static_cast<std::size_t>(columns), padding);
    for (std::size_t b = 0; b < of_sequence.size(); ++b)
      std::copy(of_sequence[b].begin(), of_sequence[b].end(),
                all.begin() + static_cast<std::ptrdiff_t>(b) * columns);
    return all;
  }
  std::vector<std::int32_t> indices() const {
    std::vector<std::int32_t> all;
    for (const auto& own : of_sequence)
      all.insert(all.end(), own.begin(), own.end());
    return all;
  }
  std::vector<std::int32_t> indptr() const {
    std::vector<std::int32_t> all{0};
    for (const auto& own : of_sequence)
      all.push_back(all.back() + static_cast<std::int32_t>(own.size()));
    return all;
  }

  std::int64_t tokens, count;
  std::vector<std::vector<std::int32_t>> of_sequence;
};

template <class Use>
void for_tokens(const Workload& workload, Use use) {
  for (int b = 0; b < workload.batch(); ++b) {
    for (int p = 0; p < workload.lengths[static_cast<std::size_t>(b)]; ++p)
      use(b, p);
  }
}

/// What all of them have: lengths, the tokens' slots with the padding that graphs of fixed size have,
/// capacities.
Handover handover_of(const Workload& workload, const Blocks& blocks, const std::string& spec) {
  Handover handover{.spec = spec,
                    .capacity = {.max_batch = workload.batch(),
                                 .kv_heads = kHeads,
                                 .max_tokens = workload.longest() + 9,
                                 .max_slots = blocks.count * blocks.tokens},
                    .lengths = workload.lengths};
  handover.slots.resize(workload.lengths.size());
  for_tokens(workload, [&](int b, int p) {
    handover.slots[static_cast<std::size_t>(b)].push_back(blocks.slot(b, p));
    handover.slot_mapping.push_back(static_cast<std::int32_t>(blocks.slot(b, p)));
  });
  handover.slot_mapping.insert(handover.slot_mapping.end(), 3, -1);
  return handover;
}

void put_scales(const Context& context, const Workload& workload, Handover& handover) {
  if (workload.call.key_scale.empty()) return;
  handover.cache.key_scale = handover.keep(context, workload.call.key_scale);
  handover.cache.value_scale = handover.keep(context, workload.call.value_scale);
  handover.cache.scale_stride = 1;
}

void put_strides(adamas_cache& cache, const HostArray& key, const HostArray& value, int page, int token,
                 int head) {
  cache.key_page_stride = key.stride(page);
  cache.key_token_stride = key.stride(token);
  cache.key_head_stride = key.stride(head);
  cache.value_page_stride = value.stride(page);
  cache.value_token_stride = value.stride(token);
  cache.value_head_stride = value.stride(head);
}

/// vLLM v1, one tensor a layer: (blocks, Hkv, block, 2 * D), K and V of a token side by side; block_table
/// padded with -1, slot_mapping (its int64 as int32) with -1.
Handover vllm_packed(const Context& context, const Workload& workload) {
  const Blocks blocks(workload, 16, 3, 11);
  const std::int64_t dim = workload.spec.head_dim;
  HostArray kv(workload, {blocks.count, kHeads, 16, 2 * dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      kv.put({blocks.block(b, p), h, blocks.token(p), 0}, workload.key(b, p, h));
      kv.put({blocks.block(b, p), h, blocks.token(p), dim}, workload.value(b, p, h));
    }
  });
  Handover handover = handover_of(workload, blocks, "cache_form=block_table page_size=16");
  const std::int64_t columns = blocks_of(handover.capacity.max_tokens, 16) + 2;
  const std::byte* const base = handover.keep(context, kv);
  handover.cache.key = base;
  handover.cache.value = base + dim * kv.unit_bytes();
  put_strides(handover.cache, kv, kv, 0, 2, 1);
  handover.cache.table = handover.keep(context, blocks.table(columns, -1));
  handover.cache.table_stride = columns;
  put_scales(context, workload, handover);
  return handover;
}

/// vLLM, the older tensor: (2, blocks, block, Hkv, D).
Handover vllm_split(const Context& context, const Workload& workload) {
  const Blocks blocks(workload, 16, 2, 12);
  const std::int64_t dim = workload.spec.head_dim;
  HostArray kv(workload, {2, blocks.count, 16, kHeads, dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      kv.put({0, blocks.block(b, p), blocks.token(p), h, 0}, workload.key(b, p, h));
      kv.put({1, blocks.block(b, p), blocks.token(p), h, 0}, workload.value(b, p, h));
    }
  });
  Handover handover = handover_of(workload, blocks, "cache_form=block_table page_size=16");
  const std::int64_t columns = blocks_of(handover.capacity.max_tokens, 16);
  const std::byte* const base = handover.keep(context, kv);
  handover.cache.key = base;
  handover.cache.value = base + kv.stride(0) * kv.unit_bytes();
  put_strides(handover.cache, kv, kv, 1, 2, 3);
  handover.cache.table = handover.keep(context, blocks.table(columns, -1));
  handover.cache.table_stride = columns;
  put_scales(context, workload, handover);
  return handover;
}

/// SGLang: k_buffer and v_buffer [size + page, Hkv, D], a slot a token, slot 0 for padded tokens;
/// req_to_token [requests, max_ctx], of which the batch's rows are req_pool_indices. Here gathered into a
/// table of the batch.
struct Sglang {
  Sglang(const Workload& workload, std::int64_t page)
      : tokens(workload, 1, 5, 13),
        key(workload, {tokens.count + page, kHeads, workload.spec.head_dim}),
        value(workload, {tokens.count + page, kHeads, workload.spec.value_dim}) {
    for (auto& own : tokens.of_sequence) {
      for (auto& slot : own)
        slot += static_cast<std::int32_t>(page);
    }
    tokens.count += page;
    for_tokens(workload, [&](int b, int p) {
      for (int h = 0; h < kHeads; ++h) {
        key.put({tokens.slot(b, p), h, 0}, workload.key(b, p, h));
        value.put({tokens.slot(b, p), h, 0}, workload.value(b, p, h));
      }
    });
  }
  void put(const Context& context, Handover& handover) const {
    handover.cache.key = handover.keep(context, key);
    handover.cache.value = handover.keep(context, value);
    put_strides(handover.cache, key, value, 0, 0, 1);
  }
  Blocks tokens;
  HostArray key, value;
};

Handover sglang_slots(const Context& context, const Workload& workload) {
  const Sglang engine(workload, 1);
  Handover handover = handover_of(workload, engine.tokens, "cache_form=slots");
  engine.put(context, handover);
  // The pool has more requests than the batch, in another order.
  const std::vector<std::int32_t> req_pool_indices{4, 0, 6, 2, 5};
  const std::int64_t max_ctx = handover.capacity.max_tokens + 24;
  std::vector<std::int32_t> req_to_token(7 * static_cast<std::size_t>(max_ctx), 0);
  for (std::size_t b = 0; b < req_pool_indices.size(); ++b) {
    std::copy(engine.tokens.of_sequence[b].begin(), engine.tokens.of_sequence[b].end(),
              req_to_token.begin() + req_pool_indices[b] * max_ctx);
  }
  std::vector<std::int32_t> gathered;
  for (const std::int32_t request : req_pool_indices) {
    gathered.insert(gathered.end(), req_to_token.begin() + request * max_ctx,
                    req_to_token.begin() + (request + 1) * max_ctx);
  }
  handover.cache.table = handover.keep(context, gathered);
  handover.cache.table_stride = max_ctx;
  return handover;
}

/// SGLang as its FlashInfer backend sees it: kv_indptr and kv_indices, pages of one token.
Handover sglang_indices(const Context& context, const Workload& workload) {
  const Sglang engine(workload, 64);
  Handover handover = handover_of(workload, engine.tokens, "cache_form=csr page_size=1");
  engine.put(context, handover);
  const auto indices = engine.tokens.indices();
  handover.cache.table = handover.keep(context, indices);
  handover.cache.table_stride = static_cast<std::int64_t>(indices.size());
  handover.cache.indptr = handover.keep(context, engine.tokens.indptr());
  return handover;
}

/// TensorRT-LLM: one pool of blocks [blocks, Hkv, page, D], a block of K or of V each; int32 block offsets
/// [pools, sequences, 2, pages], of K and then of V.
Handover tensorrt_llm(const Context& context, const Workload& workload) {
  const Blocks keys(workload, 32, 1, 14);
  const Blocks values(workload, 32, 1, 15);
  const std::int64_t dim = workload.spec.head_dim, count = 2 * std::max(keys.count, values.count);
  // K has the even blocks of the pool, V the odd ones.
  HostArray pool(workload, {count, kHeads, 32, dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      pool.put({2 * keys.block(b, p), h, keys.token(p), 0}, workload.key(b, p, h));
      pool.put({2 * values.block(b, p) + 1, h, values.token(p), 0}, workload.value(b, p, h));
    }
  });
  Blocks key_blocks = keys;
  key_blocks.count = count;
  for (auto& own : key_blocks.of_sequence) {
    for (auto& block : own)
      block *= 2;
  }
  Handover handover = handover_of(workload, key_blocks, "cache_form=block_table page_size=32 tables=split");
  const std::int64_t pages = blocks_of(handover.capacity.max_tokens, 32) + 1;
  std::vector<std::int32_t> offsets(workload.lengths.size() * 2 * static_cast<std::size_t>(pages), 0);
  for (std::size_t b = 0; b < workload.lengths.size(); ++b) {
    for (std::size_t i = 0; i < key_blocks.of_sequence[b].size(); ++i) {
      offsets[(2 * b) * static_cast<std::size_t>(pages) + i] = key_blocks.of_sequence[b][i];
      offsets[(2 * b + 1) * static_cast<std::size_t>(pages) + i] = 2 * values.of_sequence[b][i] + 1;
    }
  }
  handover.cache.key = handover.cache.value = handover.keep(context, pool);
  put_strides(handover.cache, pool, pool, 0, 2, 1);
  const std::int32_t* const table = handover.keep(context, offsets);
  handover.cache.table = table;
  handover.cache.value_table = table + pages;
  handover.cache.table_stride = 2 * pages;
  put_scales(context, workload, handover);
  return handover;
}

/// FlashInfer: pages of K then V, (pages, 2, page, Hkv, D) or (pages, 2, Hkv, page, D), by indptr, indices
/// and last_page_len, from which lengths follow.
Handover flashinfer(const Context& context, const Workload& workload, bool head_major, std::int64_t page,
                    std::uint64_t seed) {
  const Blocks blocks(workload, page, 4, seed);
  const std::int64_t dim = workload.spec.head_dim;
  HostArray kv(workload, head_major ? std::vector<std::int64_t>{blocks.count, 2, kHeads, page, dim}
                                    : std::vector<std::int64_t>{blocks.count, 2, page, kHeads, dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      const std::int64_t token = blocks.token(p);
      const std::int64_t outer = head_major ? h : token, inner = head_major ? token : h;
      kv.put({blocks.block(b, p), 0, outer, inner, 0}, workload.key(b, p, h));
      kv.put({blocks.block(b, p), 1, outer, inner, 0}, workload.value(b, p, h));
    }
  });
  Handover handover = handover_of(workload, blocks, "cache_form=csr page_size=" + std::to_string(page));
  const auto indptr = blocks.indptr(), indices = blocks.indices();
  std::vector<std::int32_t> last_page_len;
  for (const int length : workload.lengths)
    last_page_len.push_back(length == 0 ? 0 : static_cast<std::int32_t>((length - 1) % page + 1));
  for (std::size_t b = 0; b < last_page_len.size(); ++b) {
    const std::int32_t pages = indptr[b + 1] - indptr[b];
    handover.lengths[b] = pages == 0 ? 0 : (pages - 1) * static_cast<std::int32_t>(page) + last_page_len[b];
  }
  const std::byte* const base = handover.keep(context, kv);
  handover.cache.key = base;
  handover.cache.value = base + kv.stride(1) * kv.unit_bytes();
  put_strides(handover.cache, kv, kv, 0, head_major ? 3 : 2, head_major ? 2 : 3);
  handover.cache.table = handover.keep(context, indices);
  handover.cache.table_stride = static_cast<std::int64_t>(indices.size());
  handover.cache.indptr = handover.keep(context, indptr);
  return handover;
}

Handover flashinfer_nhd(const Context& context, const Workload& workload) {
  return flashinfer(context, workload, false, 16, 16);
}
Handover flashinfer_hnd(const Context& context, const Workload& workload) {
  return flashinfer(context, workload, true, 64, 17);
}
/// MLC and TVM: (pages, 2, Hkv, page, D), page_indptr and page_values: FlashInfer's HND.
Handover mlc(const Context& context, const Workload& workload) {
  return flashinfer(context, workload, true, 16, 18);
}

/// ONNX Runtime's PagedAttention: key_cache and value_cache (blocks, block, Hkv, D), block_table, and
/// past_seqlens, to which the new token is added.
Handover onnx_paged(const Context& context, const Workload& workload) {
  const Blocks blocks(workload, 256, 1, 19);
  HostArray key(workload, {blocks.count, 256, kHeads, workload.spec.head_dim});
  HostArray value(workload, {blocks.count, 256, kHeads, workload.spec.value_dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      key.put({blocks.block(b, p), blocks.token(p), h, 0}, workload.key(b, p, h));
      value.put({blocks.block(b, p), blocks.token(p), h, 0}, workload.value(b, p, h));
    }
  });
  Handover handover = handover_of(workload, blocks, "cache_form=block_table page_size=256");
  handover.cache.key = handover.keep(context, key);
  handover.cache.value = handover.keep(context, value);
  put_strides(handover.cache, key, value, 0, 1, 2);
  const std::int64_t columns = blocks_of(handover.capacity.max_tokens, 256);
  handover.cache.table = handover.keep(context, blocks.table(columns, -1));
  handover.cache.table_stride = columns;
  return handover;
}

/// TurboMind: char** block_ptrs, the blocks of the batch's sequences one after the other, cu_block_nums
/// between them. A block holds all layers, in each K (Hkv, block, D) and then V. Codes follow block ids,
/// which the engine has beside the pointers: addresses by id, and a table of ids.
Handover turbomind(const Context& context, const Workload& workload) {
  constexpr std::int64_t kLayers = 3, kLayer = 1, kBlock = 64;
  const Blocks blocks(workload, kBlock, 2, 20);
  const std::int64_t dim = workload.spec.head_dim;
  HostArray memory(workload, {blocks.count, kLayers, 2, kHeads, kBlock, dim});
  for_tokens(workload, [&](int b, int p) {
    for (int h = 0; h < kHeads; ++h) {
      memory.put({blocks.block(b, p), kLayer, 0, h, blocks.token(p), 0}, workload.key(b, p, h));
      memory.put({blocks.block(b, p), kLayer, 1, h, blocks.token(p), 0}, workload.value(b, p, h));
    }
  });
  Handover handover = handover_of(workload, blocks, "cache_form=pointers page_size=64");
  const std::byte* const base = handover.keep(context, memory);
  const std::vector<std::int32_t> ids = blocks.indices();
  std::vector<const void*> block_ptrs;
  for (const std::int32_t id : ids)
    block_ptrs.push_back(base + id * memory.stride(0) * memory.unit_bytes());
  std::vector<const void*> by_id(static_cast<std::size_t>(blocks.count), nullptr);
  for (std::size_t i = 0; i < ids.size(); ++i)
    by_id[static_cast<std::size_t>(ids[i])] = block_ptrs[i];
  handover.cache.page_addresses = handover.keep(context, by_id);
  handover.cache.key_offset = kLayer * memory.stride(1) * memory.unit_bytes();
  handover.cache.value_offset = handover.cache.key_offset + memory.stride(2) * memory.unit_bytes();
  handover.cache.key_token_stride = handover.cache.value_token_stride = memory.stride(4);
  handover.cache.key_head_stride = handover.cache.value_head_stride = memory.stride(3);
  const std::int64_t columns = blocks_of(handover.capacity.max_tokens, kBlock);
  handover.cache.table = handover.keep(context, blocks.table(columns, -1));
  handover.cache.table_stride = columns;
  return handover;
}

}  // namespace

const std::vector<Engine>& paged_engines() {
  static const std::vector<Engine> engines{
      {"vLLM, packed", "head_dim=128 group=4 budget=32 kv_type=bf16", vllm_packed},
      {"vLLM, packed, fp8", "head_dim=128 group=4 budget=32 kv_type=f8e4m3fn", vllm_packed},
      {"vLLM, split", "head_dim=80 group=1 budget=32", vllm_split},
      {"vLLM, split, fp8", "head_dim=64 group=8 budget=48 kv_type=f8e4m3fn scope=kv_head", vllm_split},
      {"SGLang, token slots", "head_dim=128 group=7 budget=32 kv_type=bf16", sglang_slots},
      {"SGLang, kv_indices", "head_dim=64 group=8 budget=32 kv_type=bf16", sglang_indices},
      {"TensorRT-LLM", "head_dim=128 group=4 budget=64", tensorrt_llm},
      {"TensorRT-LLM, fp8", "head_dim=128 group=4 budget=64 kv_type=f8e4m3fn", tensorrt_llm},
      {"FlashInfer, NHD", "head_dim=128 group=4 budget=32", flashinfer_nhd},
      {"FlashInfer, HND", "head_dim=256 group=2 budget=32 kv_type=bf16", flashinfer_hnd},
      {"ONNX Runtime, PagedAttention", "head_dim=96 group=1 budget=32", onnx_paged},
      {"MLC", "head_dim=128 group=4 budget=32 estimator=manhattan", mlc},
      {"TurboMind", "head_dim=128 group=6 budget=32", turbomind},
  };
  return engines;
}

}  // namespace adamas::tests
