// Placing sequences in a cache: see host_cache.hpp.
#include "tests/dispatch/host_cache.hpp"

#include <numeric>

#include "codegen/facts.hpp"

namespace adamas::tests {
namespace {

/// What no position needs holds this: no page, and no error.
constexpr std::int32_t kJunk = -77;

std::vector<std::int32_t> shuffled(std::int64_t count, oracle::Random& random) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i) - 1))]);
  }
  return order;
}

/// Pages that a sequence's positions reach into.
std::int64_t pages_needed(const Placement& placement, int length, std::size_t b) {
  return (placement.starts[b] + length + placement.page_tokens - 1) / placement.page_tokens;
}

/// A table of pages that lie anywhere in the cache, and the slots that it gives.
struct Table {
  std::vector<std::int32_t> entries;
  std::vector<std::vector<std::int64_t>> slots;
};

Table make_table(const Scenario& scenario, const Placement& placement, const codegen::Spec& spec,
                 oracle::Random& random) {
  const std::size_t batch = scenario.lengths.size();
  const std::vector<std::int32_t> order = shuffled(placement.pages, random);
  const bool csr = spec.cache_form == codegen::CacheForm::csr;
  Table table;
  const std::size_t entries = csr ? static_cast<std::size_t>(placement.table_stride)
                                  : batch * static_cast<std::size_t>(placement.table_stride);
  table.entries.assign(entries, kJunk);
  table.slots.resize(batch);
  std::size_t next = 0;
  for (std::size_t b = 0; b < batch; ++b) {
    const std::size_t first = csr ? static_cast<std::size_t>(placement.indptr[b])
                                  : b * static_cast<std::size_t>(placement.table_stride);
    const std::int64_t used = pages_needed(placement, scenario.lengths[b], b);
    for (std::int64_t i = 0; i < used; ++i)
      table.entries[first + static_cast<std::size_t>(i)] = order[next++];
    for (int p = 0; p < scenario.lengths[b]; ++p) {
      const std::int64_t index = placement.starts[b] + p;
      const std::int32_t page =
          table.entries[first + static_cast<std::size_t>(index / placement.page_tokens)];
      table.slots[b].push_back(page * placement.page_tokens + index % placement.page_tokens);
    }
  }
  return table;
}

/// Room for the pages of every sequence and two that nobody owns.
void place_in_tables(const Scenario& scenario, const codegen::Spec& spec, oracle::Random& random,
                     Placement& placement) {
  placement.page_tokens = codegen::facts_of(spec).page_tokens;
  placement.pages = 2;
  placement.indptr.push_back(1);  // entries before the first sequence's are nobody's
  for (std::size_t b = 0; b < scenario.lengths.size(); ++b) {
    const std::int64_t used = pages_needed(placement, scenario.lengths[b], b);
    placement.pages += used;
    placement.indptr.push_back(placement.indptr.back() + static_cast<std::int32_t>(used));
  }
  placement.max_slots = placement.pages * placement.page_tokens;
  placement.table_stride = spec.cache_form == codegen::CacheForm::csr
                               ? placement.indptr.back() + 3
                               : (placement.max_tokens + 37) / placement.page_tokens + 2;
  Table table = make_table(scenario, placement, spec, random);
  placement.table = std::move(table.entries);
  placement.slots = std::move(table.slots);
  if (spec.tables == codegen::Tables::split) {
    Table values = make_table(scenario, placement, spec, random);
    placement.value_table = std::move(values.entries);
    placement.value_slots = std::move(values.slots);
  } else {
    placement.value_slots = placement.slots;
  }
}

}  // namespace

Placement place(const Scenario& scenario, const codegen::Spec& spec, oracle::Random& random) {
  Placement placement;
  const auto batch = static_cast<int>(scenario.lengths.size());
  const int longest = *std::max_element(scenario.lengths.begin(), scenario.lengths.end());
  placement.starts.assign(batch, 0);
  if (scenario.starts) {
    for (auto& start : placement.starts)
      start = static_cast<std::int32_t>(random.integer(0, 37));
  }
  if (spec.cache_form != codegen::CacheForm::contiguous) {
    placement.max_tokens = longest + 3;
    place_in_tables(scenario, spec, random, placement);
    return placement;
  }
  placement.slots.resize(batch);
  if (scenario.packed) {
    placement.max_tokens = longest + 1;
    std::int64_t next = 0;
    for (int b = 0; b < batch; ++b) {
      placement.starts[b] = static_cast<std::int32_t>(next);
      for (int p = 0; p < scenario.lengths[b]; ++p)
        placement.slots[b].push_back(next + p);
      next += scenario.lengths[b] + random.integer(0, 5);
    }
    placement.pages = 1;
    placement.page_tokens = placement.max_slots = next + 1;
  } else {
    placement.max_tokens = placement.page_tokens = longest + 40;
    placement.pages = batch;
    for (int b = 0; b < batch; ++b) {
      for (int p = 0; p < scenario.lengths[b]; ++p) {
        placement.slots[b].push_back(b * placement.page_tokens + placement.starts[b] + p);
      }
    }
  }
  placement.value_slots = placement.slots;
  return placement;
}

CacheBuilder::CacheBuilder(const Scenario& scenario, const codegen::Spec& spec, const Placement& placement,
                           oracle::Random& random)
    : placement_(placement),
      form_(spec.cache_form),
      page_tokens_(form_ == codegen::CacheForm::slots ? placement.max_slots : placement.page_tokens),
      unit_bytes_(codegen::storage_unit(spec.kv_type).bytes) {
  const bool together = scenario.layout == HostLayout::interleaved;
  const std::int64_t heads = scenario.kv_heads, unit = codegen::storage_unit(spec.kv_type).elements;
  const std::int64_t key_dim = (together ? spec.head_dim + spec.value_dim : spec.head_dim) / unit;
  const std::int64_t value_dim = together ? key_dim : spec.value_dim / unit;
  const auto strides = [&](std::int64_t dim, std::int64_t& page, std::int64_t& token, std::int64_t& head) {
    page = page_tokens_ * heads * dim;
    token = scenario.layout == HostLayout::token_major ? heads * dim : dim;
    head = scenario.layout == HostLayout::token_major ? dim : page_tokens_ * dim;
  };
  adamas_cache& s = cache_.strides;
  strides(key_dim, s.key_page_stride, s.key_token_stride, s.key_head_stride);
  strides(value_dim, s.value_page_stride, s.value_token_stride, s.value_head_stride);
  // What no sequence owns is NaN in every type: reading it would show.
  const auto fill = [&](std::vector<std::byte>& memory, std::int64_t bytes) {
    memory.assign(static_cast<std::size_t>(bytes), std::byte{0xff});
  };
  const std::int64_t pages = placement.pages * placement.page_tokens / page_tokens_;
  const std::int64_t key_page = s.key_page_stride * unit_bytes_,
                     value_page = s.value_page_stride * unit_bytes_;
  if (together) cache_.value_begin = spec.head_dim / unit * unit_bytes_;
  if (form_ == codegen::CacheForm::pointers) {
    // A page holds what another layer keeps there, K and V.
    s.key_offset = 32;
    s.value_offset = 32 + (together ? cache_.value_begin : key_page);
    place_pages(random, 32 + key_page + (together ? 0 : value_page));
  } else {
    fill(cache_.key, pages * key_page);
    if (!together) fill(cache_.value, pages * value_page);
  }
}

/// Pages lie in any order; those that no sequence owns are nowhere.
void CacheBuilder::place_pages(oracle::Random& random, std::int64_t page_bytes) {
  const std::vector<std::int32_t> order = shuffled(placement_.pages, random);
  cache_.page_begins.assign(order.size(), -1);
  for (const auto* all : {&placement_.slots, &placement_.value_slots}) {
    for (const auto& sequence : *all) {
      for (const std::int64_t slot : sequence) {
        const auto page = static_cast<std::size_t>(slot / page_tokens_);
        cache_.page_begins[page] = order[page] * page_bytes;
      }
    }
  }
  cache_.key.assign(order.size() * static_cast<std::size_t>(page_bytes), std::byte{0xff});
}

std::byte* CacheBuilder::row(bool of_value, std::int64_t slot, int head) {
  const adamas_cache& s = cache_.strides;
  const std::int64_t page = slot / page_tokens_, token = slot % page_tokens_;
  const std::int64_t in_page =
      unit_bytes_ * (of_value ? token * s.value_token_stride + head * s.value_head_stride
                              : token * s.key_token_stride + head * s.key_head_stride);
  if (form_ == codegen::CacheForm::pointers) {
    return cache_.key.data() + cache_.page_begins[static_cast<std::size_t>(page)] +
           (of_value ? s.value_offset : s.key_offset) + in_page;
  }
  const std::int64_t at = page * unit_bytes_ * (of_value ? s.value_page_stride : s.key_page_stride) + in_page;
  if (!of_value) return cache_.key.data() + at;
  return cache_.value.empty() ? cache_.key.data() + cache_.value_begin + at : cache_.value.data() + at;
}

void CacheBuilder::put(int sequence, int position, int head, const std::vector<std::byte>& key,
                       const std::vector<std::byte>& value) {
  const auto b = static_cast<std::size_t>(sequence), p = static_cast<std::size_t>(position);
  std::copy(key.begin(), key.end(), row(false, placement_.slots[b][p], head));
  std::copy(value.begin(), value.end(), row(true, placement_.value_slots[b][p], head));
}

HostCache CacheBuilder::take() {
  // Where there are no strides between pages, none are read.
  if (form_ == codegen::CacheForm::slots || form_ == codegen::CacheForm::pointers) {
    cache_.strides.key_page_stride = cache_.strides.value_page_stride = -77;
  }
  return std::move(cache_);
}

}  // namespace adamas::tests
