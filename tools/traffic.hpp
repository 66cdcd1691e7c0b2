// Bytes that a decode step must read from the cache: what rooflines and "bytes read" columns are made of.
#pragma once

#include <algorithm>
#include <cstdint>

#include "codegen/facts.hpp"

namespace adamas::tools {

/// All K and V rows of one sequence of `tokens`, all K/V heads.
inline double dense_bytes(const codegen::Spec& spec, int kv_heads, std::int64_t tokens) {
  const codegen::StorageUnit unit = codegen::storage_unit(spec.kv_type);
  return static_cast<double>(tokens) * kv_heads * (spec.head_dim + spec.value_dim) / unit.elements *
         unit.bytes;
}

/// All codes, and the K and V rows of every selection. A row that several selections of a K/V head share is
/// counted for each, but no more rows than there are tokens.
inline double sparse_bytes(const codegen::Spec& spec, int code_row_bytes, int kv_heads, std::int64_t tokens) {
  const double codes = static_cast<double>(tokens) * kv_heads * code_row_bytes;
  const std::int64_t selections =
      std::int64_t{spec.query_rows} * codegen::facts_of(spec).selections_per_kv_head;
  const std::int64_t rows = std::min(selections * std::min<std::int64_t>(spec.budget, tokens), tokens);
  return codes + dense_bytes(spec, kv_heads, rows);
}

}  // namespace adamas::tools
