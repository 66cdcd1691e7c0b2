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
  return placement;
}

}  // namespace adamas::tests
