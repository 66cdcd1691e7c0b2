// A host's K and V as arrays, checked once against a kernel's capacity and turned into adamas_cache.
#pragma once

#include <optional>
#include <vector>

#include "handles.hpp"

namespace adamas_python {

/// The arrays of Kernels.cache, as Python gave them.
struct CacheArrays {
  std::optional<ArrayArgument> keys{}, values{}, table{}, value_table{}, indptr{}, page_addresses{},
      key_scale{}, value_scale{};
  std::int64_t key_offset = 0, value_offset = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> key_strides{},
      value_strides{};  ///< pointers: token, head
};

/// Keeps its arrays alive. Their content may change between calls; addresses, shapes and strides are those of
/// the moment it was made.
class CacheView {
 public:
  CacheView(const KernelFacts& facts, const CacheArrays& arrays);

  const adamas_cache& get() const { return cache_; }
  const nb::object& keys() const { return keys_; }
  bool has_values() const { return has_values_; }
  bool has_table() const { return cache_.table != nullptr; }
  /// Sequences that table, indptr or rows of the cache serve.
  std::int64_t batch() const { return batch_; }
  /// Slots that the arrays hold.
  std::int64_t slots() const { return slots_; }

 private:
  void take_rows(const KernelFacts& facts, const CacheArrays& arrays);
  void take_addresses(const KernelFacts& facts, const CacheArrays& arrays);
  void take_tables(const KernelFacts& facts, const CacheArrays& arrays);
  void take_scales(const KernelFacts& facts, const CacheArrays& arrays);
  const Array& keep(Array array);

  adamas_cache cache_{};
  std::vector<Array> kept_;
  nb::object keys_ = nb::none();
  bool has_values_ = false;
  std::int64_t batch_ = 0, slots_ = 0;
};

}  // namespace adamas_python
