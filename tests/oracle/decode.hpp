// One decode step of one sequence: the short-row rule, select, attend; and dense attention to compare with.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/oracle/attend.hpp"
#include "tests/oracle/config.hpp"
#include "tests/oracle/select.hpp"

namespace adamas::oracle {

/// Result of a step for R rows and Hq query heads.
struct Output {
  std::vector<double> out;        ///< [R][Hq][value_dim]
  std::vector<double> lse;        ///< [R][Hq]
  std::vector<uint8_t> is_dense;  ///< [R] 1 if the row attended to all tokens it sees by the dense_below rule
};

/// Attention over given selections [R][heads] (heads as selecting_heads()).
/// queries [R][Hq][head_dim], keys [N][Hkv][head_dim], values [N][Hkv][value_dim].
Output attend_all(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
                  const Rows<float>& values, const std::vector<Selection>& selections);

/// Attention over everything each row sees.
Output dense(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
             const Rows<float>& values);

/// The step as a host sees it: rows that see at most dense_below tokens attend to all of them, the others
/// select on `key_codes` [N][Hkv][head_dim] and attend to the selection.
Output decode(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
              const Rows<float>& values, const Rows<uint8_t>& key_codes, const Thresholds& thresholds);

/// Same, with the codes made from the keys.
Output decode(const Config& config, const Call& call, const Rows<float>& queries, const Rows<float>& keys,
              const Rows<float>& values, const Thresholds& thresholds);

}  // namespace adamas::oracle
