// Calibration: see calibrate.hpp. Plain host code: it runs once per layer and model.
#include "runtime/dispatch/calibrate.hpp"

#include <array>
#include <cmath>
#include <span>
#include <string>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/numbers.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

// Lloyd-Max thresholds of a unit Gaussian, the nonnegative half; the others are their mirror image.
constexpr std::array kPoints2{0.0};
constexpr std::array kPoints4{0.0, 0.9816};
constexpr std::array kPoints8{0.0, 0.5006, 1.05, 1.748};
constexpr std::array kPoints16{0.0, 0.2582, 0.5224, 0.7996, 1.099, 1.437, 1.844, 2.401};

// Queries of `manhattan` want narrower buckets: the outer one at 0.3 sigma did best (algorithm: Thresholds).
constexpr double kQueryShrink = 0.3 / 0.9816;

std::span<const double> half_points(int buckets) {
  switch (buckets) {
    case 2:
      return kPoints2;
    case 4:
      return kPoints4;
    case 8:
      return kPoints8;
    default:
      return kPoints16;
  }
}

/// Mean square is all that matters here and the transform is orthonormal, block by block: in exact arithmetic
/// the rotated rows have the square sum of the stored ones. So no transform is needed.
class SquareMean {
 public:
  void add(float value) {
    sum_ += static_cast<double>(value) * value;
    ++count_;
  }
  double root() const { return std::sqrt(sum_ / static_cast<double>(count_)); }

 private:
  double sum_ = 0;
  std::int64_t count_ = 0;
};

double checked(double sigma, const char* field, int head) {
  if (!std::isfinite(sigma) || sigma == 0) {
    throw Error(ADAMAS_INVALID_ARGUMENT, field, fmt::format("K/V head {}", head),
                sigma == 0 ? "must not be all zeros" : "must be finite", "calibrate on another text");
  }
  return sigma;
}

void append_thresholds(std::vector<float>& out, int buckets, double factor) {
  const auto half = half_points(buckets);
  for (std::size_t i = half.size() - 1; i > 0; --i)
    out.push_back(static_cast<float>(-half[i] * factor));
  for (const double point : half)
    out.push_back(static_cast<float>(point * factor));
}

}  // namespace

Thresholds calibrate(const codegen::Spec& spec, const Samples& samples) {
  if (spec.kv_type == codegen::ElementType::f8e4m3fn || spec.kv_type == codegen::ElementType::q8_0) {
    throw Error(ADAMAS_UNSUPPORTED, "kv_type", std::string(codegen::name(spec.kv_type)),
                "is not a type that samples can have", "calibrate on keys in f16, bf16 or f32");
  }
  if (samples.kv_heads < 1) {
    throw Error(ADAMAS_INVALID_ARGUMENT, "kv_heads", fmt::to_string(samples.kv_heads), "must be at least 1");
  }
  if (samples.keys == nullptr || samples.key_count < 1) {
    throw Error(ADAMAS_INVALID_ARGUMENT, "keys", fmt::format("{} rows", samples.key_count),
                "calibration needs at least one sample key");
  }
  const int dim = spec.head_dim;
  Thresholds thresholds;
  for (int head = 0; head < samples.kv_heads; ++head) {
    SquareMean key;
    for (std::int64_t row = 0; row < samples.key_count; ++row) {
      const std::int64_t base = (row * samples.kv_heads + head) * dim;
      for (int i = 0; i < dim; ++i)
        key.add(load_element(samples.keys, base + i, spec.kv_type));
    }
    append_thresholds(thresholds.key, spec.buckets, checked(key.root(), "keys", head));

    if (samples.queries == nullptr || samples.query_count < 1) continue;
    SquareMean query;
    const int query_heads = samples.kv_heads * spec.group;
    for (std::int64_t row = 0; row < samples.query_count; ++row) {
      const std::int64_t base = (row * query_heads + head * spec.group) * dim;
      for (int i = 0; i < spec.group * dim; ++i)
        query.add(load_element(samples.queries, base + i, spec.q_type));
    }
    append_thresholds(thresholds.query, spec.buckets, kQueryShrink * checked(query.root(), "queries", head));
  }
  return thresholds;
}

}  // namespace adamas::runtime
