// From rotated vectors to key codes, query integers and integer scores. Compiled like hadamard.cpp.
#include "tests/oracle/codes.hpp"

#include <cmath>
#include <cstdlib>

#include "tests/oracle/hadamard.hpp"

namespace adamas::oracle {
namespace {

bool all_finite(std::span<const float> values) {
  for (const float value : values) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

std::span<const float> thresholds_of(const Config& config, const std::vector<float>& all, int64_t kv_head) {
  const size_t each = static_cast<size_t>(config.buckets - 1);
  return std::span(all).subspan(static_cast<size_t>(kv_head) * each, each);
}

}  // namespace

std::vector<uint8_t> bucketize(std::span<const float> rotated, std::span<const float> thresholds) {
  std::vector<uint8_t> codes;
  for (const float y : rotated) {
    int code = 0;
    for (const float t : thresholds) {
      if (y > t) ++code;
    }
    codes.push_back(static_cast<uint8_t>(code));
  }
  return codes;
}

std::vector<int32_t> quantize_query(std::span<const float> rotated, int query_bits) {
  std::vector<int32_t> integers(rotated.size(), 0);
  if (!all_finite(rotated)) return integers;

  float largest = 0.0f;
  for (const float y : rotated) {
    if (std::fabs(y) > largest) largest = std::fabs(y);
  }
  const int limit = (1 << (query_bits - 1)) - 1;
  const float s = largest / static_cast<float>(limit);
  if (s == 0.0f) return integers;

  for (size_t i = 0; i < rotated.size(); ++i) {
    const float ratio = rotated[i] / s;
    const float rounded = std::nearbyint(ratio);  // half to even in the default rounding mode
    float clamped = rounded;
    if (clamped < static_cast<float>(-limit)) clamped = static_cast<float>(-limit);
    if (clamped > static_cast<float>(limit)) clamped = static_cast<float>(limit);
    integers[i] = static_cast<int32_t>(clamped);
  }
  return integers;
}

std::vector<uint8_t> encode_keys(const Config& config, const Rows<float>& keys,
                                 const std::vector<float>& key_thresholds) {
  std::vector<uint8_t> codes;
  codes.reserve(keys.data.size());
  for (int64_t token = 0; token < keys.count(); ++token) {
    for (int64_t head = 0; head < keys.heads; ++head) {
      const std::vector<float> rotated = hadamard(keys.at(token, head), config.hadamard);
      const std::vector<uint8_t> row = bucketize(rotated, thresholds_of(config, key_thresholds, head));
      codes.insert(codes.end(), row.begin(), row.end());
    }
  }
  return codes;
}

std::vector<int32_t> encode_queries(const Config& config, const Rows<float>& queries,
                                    const std::vector<float>& query_thresholds) {
  std::vector<int32_t> result;
  result.reserve(queries.data.size());
  for (int64_t row = 0; row < queries.count(); ++row) {
    for (int64_t head = 0; head < queries.heads; ++head) {
      const std::vector<float> rotated = hadamard(queries.at(row, head), config.hadamard);
      if (config.estimator == Estimator::kDot) {
        const std::vector<int32_t> integers = quantize_query(rotated, config.query_bits);
        result.insert(result.end(), integers.begin(), integers.end());
      } else if (all_finite(rotated)) {
        const int64_t kv_head = head / config.group;
        const std::vector<uint8_t> codes =
            bucketize(rotated, thresholds_of(config, query_thresholds, kv_head));
        result.insert(result.end(), codes.begin(), codes.end());
      } else {
        result.insert(result.end(), rotated.size(), 0);
      }
    }
  }
  return result;
}

int64_t score(const Config& config, std::span<const int32_t> query, std::span<const uint8_t> key_codes) {
  int64_t total = 0;
  for (size_t i = 0; i < query.size(); ++i) {
    const int32_t code = key_codes[i];
    if (config.estimator == Estimator::kDot) {
      total += query[i] * (2 * code - (config.buckets - 1));
    } else {
      total += std::abs(query[i] - code);
    }
  }
  return total;
}

std::vector<int64_t> scores(const Config& config, const Call& call, const Rows<int32_t>& query_integers,
                            const Rows<uint8_t>& key_codes) {
  const int64_t heads = selecting_heads(config, call);
  const int64_t tokens = key_codes.count();
  std::vector<int64_t> result;
  result.reserve(static_cast<size_t>(query_integers.count() * heads * tokens));
  for (int64_t row = 0; row < query_integers.count(); ++row) {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t token = 0; token < tokens; ++token) {
        if (config.scope == Scope::kQueryHead) {
          const auto key = key_codes.at(token, head / config.group);
          result.push_back(score(config, query_integers.at(row, head), key));
          continue;
        }
        const auto key = key_codes.at(token, head);
        int64_t best = score(config, query_integers.at(row, head * config.group), key);
        for (int member = 1; member < config.group; ++member) {
          const int64_t other = score(config, query_integers.at(row, head * config.group + member), key);
          if (better(config.estimator, other, best)) best = other;
        }
        result.push_back(best);
      }
    }
  }
  return result;
}

}  // namespace adamas::oracle
