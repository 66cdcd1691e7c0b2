// A host engine's cache as tests make it: where tokens lie (pages anywhere, packed arrays, starts, tables of
// every form), and K and V in the layouts that hosts use. What no sequence owns is NaN.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

/// Where every token of every sequence lies.
struct Placement {
  std::int64_t page_tokens = 0, pages = 0, max_tokens = 0, max_slots = 0, table_stride = 0;
  std::vector<std::int32_t> starts, table, value_table, indptr;
  /// [sequence][position], of K and of V: the same unless they have tables of their own.
  std::vector<std::vector<std::int64_t>> slots, value_slots;
};

Placement place(const Scenario& scenario, const codegen::Spec& spec, oracle::Random& random);

/// K and V of all sequences in the host's layout.
struct HostCache {
  std::vector<std::byte> key, value;  ///< `value` is empty where V lies in `key` too
  std::int64_t value_begin = 0;       ///< where V begins in `key` then, in bytes
  /// pointers: where in `key` each page begins, in bytes; negative = nowhere
  std::vector<std::int64_t> page_begins;
  adamas_cache strides;
};

class CacheBuilder {
 public:
  CacheBuilder(const Scenario& scenario, const codegen::Spec& spec, const Placement& placement,
               oracle::Random& random);

  /// Stores a token's rows of one head, as the bytes that they are in memory.
  void put(int sequence, int position, int head, const std::vector<std::byte>& key,
           const std::vector<std::byte>& value);

  HostCache take();

 private:
  std::byte* row(bool of_value, std::int64_t slot, int head);
  void place_pages(oracle::Random& random, std::int64_t page_bytes);

  const Placement& placement_;
  const codegen::CacheForm form_;
  const std::int64_t page_tokens_;  ///< of one big page, where slots are all there is
  const std::int64_t unit_bytes_;
  HostCache cache_{};
};

}  // namespace adamas::tests
