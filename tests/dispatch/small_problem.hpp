// A small problem on any device: data that follows from sequence ids, and calls that are valid until a test
// breaks them. For tests of guarantees and of bad input; numbers are the business of scenario.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "tests/dispatch/device_memory.hpp"

namespace adamas::tests {

/// Keys, values and queries follow from `id` alone, wherever in a batch the sequence stands.
struct Sequence {
  int id = 0;
  int length = 0;
};

struct SmallShape {
  std::string spec = "head_dim=64 group=2 budget=16";  ///< f16; pointers: V is K
  std::vector<Sequence> sequences = {{1, 50}, {2, 30}};
  int kv_heads = 2;
  int max_batch = 0;             ///< 0: as many as there are sequences
  std::int64_t max_tokens = 0;   ///< 0: the longest sequence's; tokens past a sequence's length are NaN
  std::int64_t dense_below = 0;  ///< none is attended densely
  std::string tuning = {};
};

/// What an attention operation wrote, bit by bit, and counted.
struct Attended {
  std::vector<std::uint16_t> out;  ///< [batch, query_rows, query heads, value_dim]
  std::vector<float> lse;          ///< [batch, query_rows, query heads]
  Counters counters = {};
};

struct Selected {
  std::vector<std::int32_t> positions;  ///< [batch, query_rows, selections, budget]
  std::vector<std::int32_t> counts;
  Counters counters = {};
};

using Operation = void (Plan::*)(const Call&, void*) const;

/// Everything is public: tests change what they want to see go wrong. The context must outlive it.
struct SmallProblem {
  SmallProblem(const Context& context, const SmallShape& shape);

  Cache cache() const;
  EncodeArgs encode_args() const;  ///< all slots of the cache
  Call call() const;               ///< valid for every operation
  void encode() const;

  /// Outputs are poisoned first.
  Attended attend_with(Operation operation, const Call& call) const;
  Attended decode() const { return attend_with(&Plan::decode, call()); }
  Attended dense() const { return attend_with(&Plan::dense, call()); }
  Selected select(const Call& call) const;
  Selected select() const { return select(call()); }

  /// Whether nothing has been written to what calls write.
  bool outputs_are_poison() const;
  void poison_outputs() const;

  std::int64_t slot(int b, int position) const;
  int query_heads() const { return shape.kv_heads * spec.group; }
  int batch() const { return static_cast<int>(shape.sequences.size()); }
  std::size_t row_heads() const {
    return static_cast<std::size_t>(batch()) * spec.query_rows * query_heads();
  }
  std::size_t out_per_sequence() const {
    return static_cast<std::size_t>(spec.query_rows) * query_heads() * spec.value_dim;
  }
  std::size_t lse_per_sequence() const { return static_cast<std::size_t>(spec.query_rows) * query_heads(); }
  std::size_t selections_per_sequence() const {
    return static_cast<std::size_t>(spec.query_rows) * selections;
  }

  const Context& context;
  const SmallShape shape;
  const codegen::Spec spec;
  const std::int64_t max_tokens;
  const std::int64_t page_tokens;         ///< of a block, or of a sequence's row
  const std::int64_t pages_per_sequence;  ///< of the block table
  const Kernel kernel;
  const Plan plan;
  const int selections;
  const std::int64_t slots;

  const DeviceMemory key, value, query, lengths, starts, table, value_table, indptr, addresses,
      key_thresholds, query_thresholds;
  const DeviceMemory codes, workspace, out, lse, positions, counts, counters;

 private:
  SmallProblem(const Context& context, const SmallShape& shape, const codegen::Spec& spec);
  std::int64_t page_of(int b, std::int64_t block) const;
  std::vector<std::int32_t> block_tables() const;
  std::vector<std::int32_t> page_ranges() const;  ///< of csr
  std::vector<const void*> page_addresses() const;
  std::vector<std::uint16_t> cache_rows(int dim, std::uint64_t salt) const;
  std::vector<std::uint16_t> query_rows() const;
  std::vector<float> thresholds(float outer) const;
};

/// Part `index` of `values` cut into parts of `size`.
template <class T>
std::vector<T> part(const std::vector<T>& values, std::size_t index, std::size_t size) {
  return {values.begin() + static_cast<std::ptrdiff_t>(index * size),
          values.begin() + static_cast<std::ptrdiff_t>((index + 1) * size)};
}

}  // namespace adamas::tests
