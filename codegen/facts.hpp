// Facts: what follows from a Spec alone, decided once and obeyed by the emitters of every language.
#pragma once

#include <cstdint>
#include <span>

#include "codegen/spec.hpp"

namespace adamas::codegen {

/// y = x H_m / sqrt(m), m = order * 2^log2: radix-2 butterflies inside, the fixed matrix of `order` across.
struct HadamardFactors {
  int order;   ///< 1, 12, 20 or 28
  int log2;    ///< k
  float norm;  ///< the float32 nearest to 1/sqrt(m)
};
/// @throws Error(ADAMAS_INVALID_SPEC) unless is_hadamard_size(m).
HadamardFactors hadamard_factors(int m);
bool is_hadamard_size(int m);

/// Rows of the matrix of order 1, 12, 20 or 28: bit j of row r set = entry (r, j) is -1. Row 0 is all +1.
std::span<const std::uint32_t> hadamard_rows(int order);

struct Facts {
  HadamardFactors hadamard;
  int code_bits;      ///< log2(buckets), 1..4
  int query_max;      ///< M: query integers lie in -M..M (dot), query codes in 0..M (manhattan: buckets-1)
  int score_limit;    ///< dot: |score| <= it; manhattan: 0 <= distance <= it
  /// Order key of a score: unsigned, larger is better. dot: score + score_limit; manhattan: score_limit - distance.
  /// Forced tokens get key_forced, above every score.
  int key_limit;      ///< largest order key of a score
  int key_forced;     ///< key_limit + 1
  int key_bytes;      ///< 2 if key_forced < 2^16, else 4
  int selections_per_kv_head;  ///< group, or 1 in kv_head scope
  int page_tokens;  ///< of the pages that tables name: page_size, 1 for slots; 0 = contiguous, a capacity says
};
Facts facts_of(const Spec&);

}  // namespace adamas::codegen
