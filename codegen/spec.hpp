// Spec: everything that is compiled into a kernel, as `key=value ...` text. The same text serves the C and C++
// interfaces, the command line, files and the kernel cache. Batch and length are call data and never appear here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace adamas::codegen {

enum class Estimator { dot, manhattan };
enum class Scope { query_head, kv_head };
enum class ElementType { f16, bf16, f32, f8e4m3fn, q8_0 };
enum class CacheForm { contiguous, block_table, csr, slots, pointers };
enum class Tables { shared, split };

/// What a kernel set is made for. Build one with Spec::parse: a value that exists has been validated.
struct Spec {
  int head_dim = 128;  ///< 16..512, a multiple of 16
  int value_dim = 128;
  int hadamard = 128;  ///< block size of the transform, 2^k * {1, 12, 20, 28}, divides head_dim
  int buckets = 4;     ///< 2, 4, 8, 16
  Estimator estimator = Estimator::dot;
  int query_bits = 4;  ///< 3..8; dot only
  int budget = 128;    ///< 1..4096 tokens a selection, forced ones included
  int sink = 0;        ///< first tokens always selected
  int recent = 1;      ///< last tokens always selected, >= 1
  int group = 1;       ///< query heads a K/V head, 1..32
  Scope scope = Scope::query_head;
  int query_rows = 1;  ///< 1..8 rows a sequence
  ElementType kv_type = ElementType::f16;
  ElementType q_type = ElementType::f16;
  ElementType out_type = ElementType::f16;
  CacheForm cache_form = CacheForm::block_table;
  int page_size = 16;  ///< 1..1024; block_table, csr and pointers; see Facts::page_tokens
  Tables tables = Tables::shared;
  bool lse = true;
  bool soft_cap = false;
  bool window = false;
  bool sink_logits = false;

  /// Parses "key=value key=value", fills the defaults that depend on other keys, validates.
  /// @throws Error(ADAMAS_INVALID_SPEC) naming key, value, rule and the nearest valid value.
  static Spec parse(std::string_view text);

  /// Canonical text: every key, in the order above, one blank between. parse(text()) gives an equal Spec.
  std::string text() const;

  /// 64-bit xxHash of text(): stable over runs and machines.
  std::uint64_t hash() const;

  bool operator==(const Spec&) const = default;
};

/// Largest valid Hadamard size that divides head_dim.
int default_hadamard(int head_dim);

std::string_view name(Estimator);
std::string_view name(Scope);
std::string_view name(ElementType);
std::string_view name(CacheForm);
std::string_view name(Tables);

/// Bytes of one element; f8e4m3fn 1. @throws Error for block formats (q8_0).
int element_bytes(ElementType);

/// What memory is made of, and strides count: an element, or for q8_0 a block of 32 behind a scale.
struct StorageUnit {
  int elements, bytes;
};
StorageUnit storage_unit(ElementType);

}  // namespace adamas::codegen
