// Default thresholds from sample keys and queries of a layer.
#pragma once

#include <vector>

#include "tests/oracle/config.hpp"

namespace adamas::oracle {

/// The B-1 Lloyd-Max thresholds of a unit Gaussian, ascending.
std::vector<double> lloyd_max_points(int buckets);

/// Root mean square of the rotated vectors of heads `first_head` .. `first_head + head_count - 1`.
double rotated_rms(const Config& config, const Rows<float>& rows, int64_t first_head, int64_t head_count);

/// Thresholds of every KV head: keys from sigma_k, queries (manhattan) from 0.3/0.9816 of the sigma_q of the
/// head's group. Products in double, rounded to float once. keys [N][Hkv][d], queries [samples][Hq][d].
Thresholds calibrate(const Config& config, const Rows<float>& keys, const Rows<float>& queries);

}  // namespace adamas::oracle
