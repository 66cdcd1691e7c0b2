// What host-conformance tests are made of: a workload (sequences of known keys, values and queries), an
// engine's arrays as the engine declares them, and what the engine then hands to the library. How the two
// meet is in engines.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "tests/dispatch/device_memory.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::tests {

/// Sequences of one decode step. The last is padding of the batch: it has no tokens.
class Workload {
 public:
  /// @param shape  keys of the Spec that say what is computed: head_dim, group, kv_type, ...
  explicit Workload(const std::string& shape, std::uint64_t seed = 1);

  int batch() const { return static_cast<int>(lengths.size()); }
  int longest() const;
  /// A token's row of one K/V head, as the bytes that it is in memory.
  std::vector<std::byte> key(int sequence, int position, int head) const;
  std::vector<std::byte> value(int sequence, int position, int head) const;
  std::vector<std::byte> queries() const;  ///< [batch, query heads, head_dim]

  const std::string shape;
  const codegen::Spec spec;
  const oracle::Config config;
  const std::vector<std::int32_t> lengths{70, 33, 200, 16, 0};
  static constexpr int kKvHeads = 2;
  oracle::Call call;
  std::vector<oracle::Problem> problems;
  oracle::Thresholds thresholds;
};

/// A dense array of an engine, in C order, of rows of K or V. The last extent counts elements (blocks, of
/// q8_0).
class HostArray {
 public:
  /// What is never written is NaN in every type.
  HostArray(const Workload& workload, std::vector<std::int64_t> shape);

  void put(std::initializer_list<std::int64_t> index, const std::vector<std::byte>& row);
  /// Of dimension `d`, in elements (blocks).
  std::int64_t stride(int d) const { return strides_[static_cast<std::size_t>(d)]; }
  std::int64_t unit_bytes() const { return unit_bytes_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::int64_t unit_bytes_;
  std::vector<std::int64_t> shape_, strides_;
  std::vector<std::byte> bytes_;
};

/// What an engine hands over in a decode step. Owns the device memory that `cache` points to.
struct Handover {
  std::string spec;  ///< how the cache lies: cache_form, page_size, tables
  Capacity capacity = {};
  adamas_cache cache = {};
  std::vector<std::int32_t> lengths = {};
  std::vector<std::int32_t> starts = {};        ///< empty: none
  std::vector<std::int32_t> slot_mapping = {};  ///< for encode: where the tokens are, -1 = padding
  /// [sequence][position]: the slot that a list of slots must name
  std::vector<std::vector<std::int64_t>> slots = {};

  std::vector<DeviceMemory> memory = {};
  /// Copies to the device and keeps it there.
  template <class T>
  T* keep(const Context& context, const std::vector<T>& values) {
    memory.push_back(DeviceMemory::of(context, values));
    return memory.back().template as<T>();
  }
  std::byte* keep(const Context& context, const HostArray& array) { return keep(context, array.bytes()); }
};

/// Encodes by the slot mapping, decodes, and CHECKs codes' selections, output, LSE and counters against the
/// oracle.
void check_handover(const Context& context, const Workload& workload, const Handover& handover);

/// `count` numbers from 0 in no order.
std::vector<std::int32_t> shuffled(std::int64_t count, std::uint64_t seed);

}  // namespace adamas::tests
