// From rotated vectors to key codes, query integers and integer scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tests/oracle/config.hpp"

namespace adamas::oracle {

/// Codes of one rotated vector: for each element the number of thresholds strictly below it (NaN: 0).
std::vector<uint8_t> bucketize(std::span<const float> rotated, std::span<const float> thresholds);

/// Integers of one rotated query for `dot`, -M..M with M = 2^(query_bits-1) - 1.
/// All zero if the largest magnitude is 0 or any element is not finite.
std::vector<int32_t> quantize_query(std::span<const float> rotated, int query_bits);

/// Key codes [N][Hkv][head_dim], one byte an element, of keys [N][Hkv][head_dim] as stored.
std::vector<uint8_t> encode_keys(const Config& config, const Rows<float>& keys,
                                 const std::vector<float>& key_thresholds);

/// What the estimator takes of queries [R][Hq][head_dim], same shape: integers for dot, codes for manhattan.
std::vector<int32_t> encode_queries(const Config& config, const Rows<float>& queries,
                                    const std::vector<float>& query_thresholds);

/// Score of one query head against one key: dot (larger is better) or manhattan distance (smaller is better).
int64_t score(const Config& config, std::span<const int32_t> query, std::span<const uint8_t> key_codes);

/// Whether score `a` is strictly better than `b`.
inline bool better(Estimator estimator, int64_t a, int64_t b) {
  return estimator == Estimator::kDot ? a > b : a < b;
}

/// Scores [R][heads][N] of every row against every token, visible to it or not. heads = query heads, or KV
/// heads with scope kv_head, where a score is the best over the group's query heads.
/// `query_integers` [R][Hq][head_dim], `key_codes` [N][Hkv][head_dim].
std::vector<int64_t> scores(const Config& config, const Call& call, const Rows<int32_t>& query_integers,
                            const Rows<uint8_t>& key_codes);

}  // namespace adamas::oracle
