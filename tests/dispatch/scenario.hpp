// A scenario: one Spec and one call over ragged sequences, run through every operation of the public
// interface and held against the oracle. Codes, query integers, scores and selections must agree bit by bit,
// attention within tolerance.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "tests/oracle/oracle.hpp"

namespace adamas::tests {

/// How a host lays out K and V.
enum class HostLayout {
  token_major,  ///< [page, token, head, dim]
  head_major,   ///< [page, head, token, dim]
  interleaved,  ///< [page, head, token, K then V]
};

struct Scenario {
  std::string spec = {};
  std::vector<int> lengths = {};  ///< one a sequence; 0 is a padded row
  int kv_heads = 2;
  oracle::RowKind kind = oracle::RowKind::kNormal;
  HostLayout layout = HostLayout::token_major;
  bool packed = false;          ///< contiguous: one array for all sequences
  bool starts = false;          ///< positions begin somewhere inside the sequence's table or row
  bool row_budgets = false;     ///< a budget of its own for each row
  bool bulk = false;            ///< encode a range of slots in place of a list
  bool scale_per_head = false;  ///< f8e4m3fn: in place of one for the tensor
  std::int64_t dense_below = 0;
  int window = 0;
  float soft_cap = 0;
  std::string tuning = {};
  std::uint64_t seed = 1;

  std::string text() const;  ///< for failure messages
};

/// Runs every operation and CHECKs it. `context` may be of any device.
void check_scenario(const Context& context, const Scenario& scenario);

/// Scenarios over the breadth of shapes and forms, odd ones included. Deterministic.
std::vector<Scenario> fixed_scenarios();
/// One of four parts of them: test cases that may run side by side, as most of their time goes into compiles.
template <int kPart>
struct ScenarioPart {
  static constexpr int kIndex = kPart;
};
inline constexpr int kScenarioParts = 4;
void check_fixed_scenarios(const Context& context, int part);
/// A random valid scenario that backends support.
Scenario random_scenario(std::uint64_t seed);

}  // namespace adamas::tests
