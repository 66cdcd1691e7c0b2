// One problem run through the CPU stages directly, below the runtime: every buffer ends at a page that traps,
// and each stage's result is held against the oracle.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "codegen/generator.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::tests {

struct StageCase {
  std::string spec;
  std::vector<int> lengths;  ///< one a sequence
  int kv_heads = 1;
  oracle::RowKind kind = oracle::RowKind::kNormal;
  bool head_major = false;  ///< K and V as [page, head, token, dim], else [page, token, head, dim]
  bool element_aligned =
      false;            ///< rows of K, V, queries and outputs lie one element further apart than need be
  bool packed = false;  ///< contiguous: one array for all sequences
  bool starts = false;  ///< position 0 lies somewhere inside the sequence's table or row
  bool bulk = false;    ///< encode a range of slots, uninitialised ones included
  bool row_budgets = false;
  std::int64_t dense_below = 0;
  int window = 0;
  float soft_cap = 0;
  std::string target = "host";
  std::uint64_t seed = 1;
};

/// Compiles the three units and CHECKs codes, query integers, scores, selections (bitwise), attention over
/// them and dense attention (within the contract's tolerance, and bitwise the same whatever the order of work
/// items and the room for chunks). Does nothing but say so where there is no CPU compiler.
void check_stages(const StageCase& stage_case);

/// The same call with wild lengths, starts, tables, slots and positions for all sequences but the first: no
/// stage may leave its buffers, the status word must tell, and the first sequence's results must not change
/// by a bit.
void check_wild_data(const StageCase& stage_case);

}  // namespace adamas::tests
