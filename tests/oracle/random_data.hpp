// Deterministic test data, the same on every machine and standard library.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/oracle/config.hpp"

namespace adamas::oracle {

/// How the rows of a random array look.
enum class RowKind {
  kNormal,    ///< unit Gaussian
  kInteger,   ///< integers -3..3: after the rotation halves and ties are common
  kAllEqual,  ///< every row the same Gaussian vector, so that all scores tie
  kZero,      ///< all zero
  kOpposed,   ///< unrelated, near one fixed vector (a row of 64) or near its opposite (of 8): scores of all
              ///< sizes
  kSpecial,   ///< Gaussian with a NaN, +inf or -inf in about one row of four, and a zero row now and then
};

/// A small generator (SplitMix64): standard distributions differ between libraries, this does not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// Uniform integer in low..high, both included.
  int64_t integer(int64_t low, int64_t high);
  /// Uniform in (0, 1).
  double uniform();
  /// Unit Gaussian.
  double normal();

 private:
  uint64_t state_;
};

/// `count` rows of `dim` values, each the nearest that `format` can hold.
std::vector<float> random_rows(Random& random, RowKind kind, int64_t count, int64_t dim, Format format);

/// The scale of a K/V head among [1] or [Hkv] of them; 1 where there are none.
float scale_of(const std::vector<float>& scales, int kv_head);

/// Queries [R][Hq][head_dim], keys [N][Hkv][head_dim], values [N][Hkv][value_dim] of one sequence.
struct Problem {
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;
  Thresholds thresholds;  ///< calibrated on finite Gaussian rows; for integer rows 0 and whole steps, so keys
                          ///< hit them

  Rows<float> query_rows(const Config& config, const Call& call) const;
  Rows<float> key_rows(const Config& config, const Call& call) const;
  Rows<float> value_rows(const Config& config, const Call& call) const;
};

/// A problem of `tokens` tokens. Queries and keys are of `kind`; values are Gaussian, or special with
/// kSpecial.
Problem random_problem(Random& random, const Config& config, const Call& call, int64_t tokens, RowKind kind);

}  // namespace adamas::oracle
