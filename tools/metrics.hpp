// How good a selection is, against exact attention in double on the host: recall, softmax mass, error of the
// output.
#pragma once

#include <cstdint>
#include <vector>

#include "codegen/spec.hpp"
#include "tools/dump.hpp"
#include "tools/layer_run.hpp"

namespace adamas::tools {

/// Means over queries and query heads.
struct Accuracy {
  double recall = 0;   ///< share of the exact top-budget (same forced tokens) that was selected
  double mass = 0;     ///< exact softmax probability on the selected tokens
  double rel_err = 0;  ///< L2 of (output - dense output) over L2 of dense output
};

/// Exact attention of a whole dump layer: logits and dense outputs, computed once and compared with many
/// results.
class ExactAttention {
 public:
  /// @param scale  logit scale
  ExactAttention(const DumpLayer& layer, double scale);

  /// The tokens that exact logits would select under `spec`'s budget, forced tokens and scope.
  Selection best(const codegen::Spec& spec) const;

  Accuracy compare(const codegen::Spec& spec, const LayerResult& result) const;

 private:
  const double* logits(int query, int head) const {
    return logits_.data() + (static_cast<std::size_t>(query) * layer_.query_heads + head) * layer_.tokens;
  }
  std::vector<std::int32_t> top(const codegen::Spec& spec, int query, int first_head, int heads) const;

  const DumpLayer& layer_;
  std::vector<double> logits_;  // [queries, query heads, tokens]; what a query does not see is left at zero
  std::vector<double> dense_;   // [queries, query heads, value_dim]
};

}  // namespace adamas::tools
