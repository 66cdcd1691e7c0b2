// Random caches on a device: where each sequence's tokens lie, and several caches of one shape, so that a
// step finds none of its data in the machine's caches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "runtime/device/device.hpp"
#include "tools/bench_shapes.hpp"

namespace adamas::tools {

/// How much the keys differ.
enum class KeyPattern {
  random,  ///< every token's its own
  bursts,  ///< runs of equal tokens: far more candidates at the threshold than the budget
  ties,    ///< all tokens equal
};
/// "random", "bursts", "ties". @throws codegen::Error(ADAMAS_INVALID_ARGUMENT)
KeyPattern key_pattern(const std::string& name);

/// Where the sequences of a shape lie in a cache of exactly their size.
struct BenchLayout {
  adamas_capacity capacity;  ///< what the kernel is prepared for
  std::int64_t page_tokens = 0, slots = 0;
  std::int64_t table_stride = 0;     ///< forms with tables: pages of max_tokens
  std::vector<std::int32_t> table;   ///< [batch, table_stride]
  std::vector<std::int32_t> starts;  ///< contiguous and ragged: one packed array; else empty
  std::vector<std::int32_t> lengths;
  std::vector<std::int32_t> last_slots;  ///< of each sequence's last token
};
/// @throws codegen::Error(ADAMAS_UNSUPPORTED) for cache_form=pointers
/// @param scattered  pages in a fixed random order, as in an engine that has been running for a while
BenchLayout lay_out(const codegen::Spec&, const BenchShape&, bool scattered);

/// Caches that a step must rotate over until its own data has left the machine's caches, at most what fits.
/// @param step_bytes  read by one step
/// @param set_bytes   of one cache with its codes
/// @param cold_bytes  see bandwidth.hpp
int rotated_sets(double step_bytes, double set_bytes, double cold_bytes, double memory_bytes);

class BenchData {
 public:
  /// Fills and encodes everything; waits for it. @param device  the context's own
  BenchData(const Context& context, const runtime::Device& device, const codegen::Spec& spec,
            const Kernel& kernel, const BenchLayout& layout, int sets, KeyPattern keys);

  int sets() const { return static_cast<int>(sets_.size()); }
  /// A call on set `step % sets()`; workspace is left to the caller.
  Call call(int step) const;
  /// Encoding that set's cache, or each sequence's last token.
  EncodeArgs encode_all(int step) const;
  EncodeArgs encode_last(int step) const;

 private:
  struct Set {
    Buffer<std::byte> key, value, codes;
  };
  const Set& set(int step) const { return sets_[static_cast<std::size_t>(step) % sets_.size()]; }
  Cache cache(const Set&) const;

  codegen::Spec spec_;
  std::int64_t key_head_, value_head_;    // what strides count, from one head to the next
  std::int64_t key_token_, value_token_;  // and from one token to the next
  std::int64_t page_tokens_, slots_, table_stride_;
  bool packed_;
  std::vector<Set> sets_;
  Buffer<std::byte> query_, out_;
  Buffer<std::int32_t> table_, indptr_, starts_, lengths_, last_slots_;
  Buffer<float> thresholds_, scales_, sinks_;
};

/// With window=on a row sees so many tokens.
inline constexpr int kBenchWindow = 4096;

}  // namespace adamas::tools
