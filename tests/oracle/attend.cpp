// Exact softmax attention in double, over a list of positions.
#include "tests/oracle/attend.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace adamas::oracle {

double logit(const Config& config, const Call& call, std::span<const float> query,
             std::span<const float> key) {
  double dot = 0;
  for (size_t i = 0; i < query.size(); ++i)
    dot += static_cast<double>(query[i]) * static_cast<double>(key[i]);
  const double scaled = static_cast<double>(call.scale) * dot;
  if (!config.soft_cap) return scaled;
  const double cap = call.soft_cap;
  return cap * std::tanh(scaled / cap);
}

HeadOutput attend(const Config& config, const Call& call, std::span<const float> query, int64_t head,
                  const Rows<float>& keys, const Rows<float>& values, std::span<const int32_t> positions) {
  HeadOutput result;
  result.out.assign(static_cast<size_t>(config.value_dim), 0.0);
  result.lse = -std::numeric_limits<double>::infinity();
  if (positions.empty()) return result;

  const int64_t kv_head = head / config.group;
  std::vector<double> logits;
  double largest = -std::numeric_limits<double>::infinity();
  for (const int32_t p : positions) {
    logits.push_back(logit(config, call, query, keys.at(p, kv_head)));
    largest = std::max(largest, logits.back());
  }
  // The sink logit joins the maximum so that its exponential cannot overflow, and then the denominator alone.
  const double sink = config.sink_logits ? static_cast<double>(call.sink_logits.at(static_cast<size_t>(head)))
                                         : -std::numeric_limits<double>::infinity();
  const double shift = std::max(largest, sink);

  double selected = 0;     // sum of exp(logit - largest), for the LSE
  double denominator = 0;  // sum of exp(logit - shift) and of the sink's
  for (size_t i = 0; i < positions.size(); ++i) {
    selected += std::exp(logits[i] - largest);
    const double weight = std::exp(logits[i] - shift);
    denominator += weight;
    const auto value = values.at(positions[i], kv_head);
    for (size_t e = 0; e < value.size(); ++e)
      result.out[e] += weight * static_cast<double>(value[e]);
  }
  if (config.sink_logits) denominator += std::exp(sink - shift);
  for (double& e : result.out)
    e /= denominator;
  result.lse = largest + std::log(selected);
  return result;
}

std::vector<int32_t> all_positions(Range seen) {
  std::vector<int32_t> positions;
  for (int64_t p = seen.begin; p < seen.end; ++p)
    positions.push_back(static_cast<int32_t>(p));
  return positions;
}

}  // namespace adamas::oracle
