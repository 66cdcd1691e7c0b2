// Placing sequences in a cache: see host_cache.hpp.
#include "tests/dispatch/host_cache.hpp"

#include <numeric>

namespace adamas::tests {

Placement place(const Scenario& scenario, const codegen::Spec& spec, oracle::Random& random) {
  Placement placement;
  const auto batch = static_cast<int>(scenario.lengths.size());
  const int longest = *std::max_element(scenario.lengths.begin(), scenario.lengths.end());
  placement.starts.assign(batch, 0);
  if (scenario.starts) {
    for (auto& start : placement.starts)
      start = static_cast<std::int32_t>(random.integer(0, 37));
  }
  placement.slots.resize(batch);
  const bool paged = spec.cache_form == codegen::CacheForm::block_table;
  if (paged) {
    // A sequence's pages lie anywhere in the cache; what its table does not need holds junk.
    placement.max_tokens = longest + 3;
    placement.page_tokens = spec.page_size;
    placement.table_stride = (placement.max_tokens + 37) / spec.page_size + 2;
    std::vector<std::int64_t> used(batch);
    for (int b = 0; b < batch; ++b) {
      used[b] = (placement.starts[b] + scenario.lengths[b] + spec.page_size - 1) / spec.page_size;
    }
    placement.pages = std::accumulate(used.begin(), used.end(), std::int64_t{2});
    placement.max_slots = placement.pages * spec.page_size;
    std::vector<std::int32_t> order(placement.pages);
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1],
                order[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i) - 1))]);
    }
    placement.table.assign(static_cast<std::size_t>(batch * placement.table_stride), -77);
    std::size_t next = 0;
    for (int b = 0; b < batch; ++b) {
      for (std::int64_t i = 0; i < used[b]; ++i)
        placement.table[b * placement.table_stride + i] = order[next++];
      for (int p = 0; p < scenario.lengths[b]; ++p) {
        const std::int64_t index = placement.starts[b] + p;
        placement.slots[b].push_back(placement.table[b * placement.table_stride + index / spec.page_size] *
                                         std::int64_t{spec.page_size} +
                                     index % spec.page_size);
      }
    }
  } else if (scenario.packed) {
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
  return placement;
}

}  // namespace adamas::tests
