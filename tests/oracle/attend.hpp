// Exact softmax attention in double, over a list of positions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/oracle/config.hpp"

namespace adamas::oracle {

/// Output and log-sum-exp of one query head of one row.
struct HeadOutput {
  std::vector<double> out;  ///< [value_dim]; zero if no token was attended
  double lse = 0;           ///< natural log, without the sink logit; -inf if no token was attended
};

/// Logit of one query against one key: scale * q.k, then the soft cap if Config has it.
double logit(const Config& config, const Call& call, std::span<const float> query,
             std::span<const float> key);

/// Attention of query head `head` of one row over `positions` of keys [N][Hkv][head_dim] and values
/// [N][Hkv][value_dim]. `query` [head_dim].
HeadOutput attend(const Config& config, const Call& call, std::span<const float> query, int64_t head,
                  const Rows<float>& keys, const Rows<float>& values, std::span<const int32_t> positions);

/// The positions of a range as a list: attend over it is dense attention.
std::vector<int32_t> all_positions(Range seen);

}  // namespace adamas::oracle
