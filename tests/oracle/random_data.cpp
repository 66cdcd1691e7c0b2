// Deterministic test data.
#include "tests/oracle/random_data.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "tests/oracle/calibrate.hpp"
#include "tests/oracle/stored.hpp"

namespace adamas::oracle {

uint64_t Random::next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int64_t Random::integer(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
}

double Random::uniform() { return (static_cast<double>(next() >> 11) + 0.5) * 0x1p-53; }

double Random::normal() {
  // The sum of twelve uniforms: no libm call, so the same bits everywhere.
  double sum = -6;
  for (int i = 0; i < 12; ++i)
    sum += uniform();
  return sum;
}

namespace {

/// Row `row` of RowKind::kOpposed.
void opposed_row(Random& random, int64_t row, int64_t dim, Format format, float* to) {
  constexpr double kScale = 3;
  Random fixed(1);
  for (int64_t i = 0; i < dim; ++i) {
    const double direction = fixed.normal(), noise = random.normal();
    const double value = row % 64 == 0  ? noise + kScale * direction
                         : row % 8 == 1 ? noise - kScale * direction
                                        : noise * kScale;
    to[i] = round_to(format, static_cast<float>(value));
  }
}

}  // namespace

std::vector<float> random_rows(Random& random, RowKind kind, int64_t count, int64_t dim, Format format) {
  std::vector<float> values(static_cast<size_t>(count * dim), 0.0f);
  if (kind == RowKind::kZero) return values;
  for (int64_t row = 0; row < count; ++row) {
    float* first = values.data() + row * dim;
    if (kind == RowKind::kOpposed) {
      opposed_row(random, row, dim, format, first);
      continue;
    }
    for (int64_t i = 0; i < dim; ++i) {
      if (kind == RowKind::kInteger) {
        first[i] = static_cast<float>(random.integer(-3, 3));
      } else if (kind == RowKind::kAllEqual && row > 0) {
        first[i] = values[static_cast<size_t>(i)];
      } else {
        first[i] = round_to(format, static_cast<float>(random.normal()));
      }
    }
    if (kind == RowKind::kSpecial && random.integer(0, 3) == 0) {
      const float infinity = std::numeric_limits<float>::infinity();
      const float specials[] = {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity};
      first[random.integer(0, dim - 1)] = specials[random.integer(0, 2)];
    } else if (kind == RowKind::kSpecial && random.integer(0, 7) == 0) {
      for (int64_t i = 0; i < dim; ++i)
        first[i] = 0.0f;
    }
  }
  return values;
}

namespace {

/// Rows of the kind as the cache gives them back: formats with scales store ordinary numbers.
std::vector<float> stored_rows(Random& random, RowKind kind, int64_t tokens, int heads, int64_t dim,
                               Format format, const std::vector<float>& scales) {
  if (format != Format::kF8E4M3 && format != Format::kQ8_0) {
    return random_rows(random, kind, tokens * heads, dim, format);
  }
  std::vector<float> rows = random_rows(random, kind, tokens * heads, dim, Format::kF32);
  for (int64_t row = 0; row < tokens * heads; ++row) {
    const std::span<float> one =
        std::span(rows).subspan(static_cast<size_t>(row * dim), static_cast<size_t>(dim));
    const std::vector<float> held = stored(format, one, scale_of(scales, static_cast<int>(row % heads)));
    std::copy(held.begin(), held.end(), one.begin());
  }
  return rows;
}

}  // namespace

float scale_of(const std::vector<float>& scales, int kv_head) {
  return scales.empty() ? 1.0f : scales[scales.size() == 1 ? 0 : static_cast<size_t>(kv_head)];
}

Rows<float> Problem::query_rows(const Config& config, const Call& call) const {
  return {queries, int64_t{call.kv_heads} * config.group, config.head_dim};
}
Rows<float> Problem::key_rows(const Config& config, const Call& call) const {
  return {keys, call.kv_heads, config.head_dim};
}
Rows<float> Problem::value_rows(const Config& config, const Call& call) const {
  return {values, call.kv_heads, config.value_dim};
}

Problem random_problem(Random& random, const Config& config, const Call& call, int64_t tokens, RowKind kind) {
  const int64_t query_heads = int64_t{call.kv_heads} * config.group;
  Problem problem;
  problem.queries =
      random_rows(random, kind, config.query_rows * query_heads, config.head_dim, config.q_type);
  problem.keys =
      stored_rows(random, kind, tokens, call.kv_heads, config.head_dim, config.kv_type, call.key_scale);
  problem.values = stored_rows(random, kind == RowKind::kSpecial ? kind : RowKind::kNormal, tokens,
                               call.kv_heads, config.value_dim, config.kv_type, call.value_scale);
  if (kind == RowKind::kInteger) {
    // Rotated integer rows are whole multiples of 1/sqrt(m): whole steps of it are hit exactly, which tests
    // that a comparison is strict.
    const float step = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.hadamard)));
    const int reach = config.buckets / 2 - 1;
    for (int head = 0; head < call.kv_heads; ++head) {
      for (int i = -reach; i <= reach; ++i) {
        problem.thresholds.key.push_back(static_cast<float>(i) * 5.0f * step);
        problem.thresholds.query.push_back(static_cast<float>(i) * 3.0f * step);
      }
    }
  } else {
    const std::vector<float> sample =
        random_rows(random, RowKind::kNormal, 16 * query_heads, config.head_dim, config.q_type);
    const std::vector<float> key_sample = stored_rows(random, RowKind::kNormal, 16, call.kv_heads,
                                                      config.head_dim, config.kv_type, call.key_scale);
    problem.thresholds = calibrate(config, Rows<float>(key_sample, call.kv_heads, config.head_dim),
                                   Rows<float>(sample, query_heads, config.head_dim));
  }
  return problem;
}

}  // namespace adamas::oracle
