// Default thresholds from sample keys and queries of a layer.
#include "tests/oracle/calibrate.hpp"

#include <cmath>
#include <stdexcept>

#include "tests/oracle/hadamard.hpp"

namespace adamas::oracle {

std::vector<double> lloyd_max_points(int buckets) {
  std::vector<double> upper;  // the points from zero up; the lower half mirrors them
  switch (buckets) {
    case 2:
      upper = {0};
      break;
    case 4:
      upper = {0, .9816};
      break;
    case 8:
      upper = {0, .5006, 1.05, 1.748};
      break;
    case 16:
      upper = {0, .2582, .5224, .7996, 1.099, 1.437, 1.844, 2.401};
      break;
    default:
      throw std::logic_error("oracle: buckets must be 2, 4, 8 or 16");
  }
  std::vector<double> points;
  for (size_t i = upper.size() - 1; i > 0; --i)
    points.push_back(-upper[i]);
  points.insert(points.end(), upper.begin(), upper.end());
  return points;
}

double rotated_rms(const Config& config, const Rows<float>& rows, int64_t first_head, int64_t head_count) {
  double sum = 0;
  int64_t elements = 0;
  for (int64_t row = 0; row < rows.count(); ++row) {
    for (int64_t head = first_head; head < first_head + head_count; ++head) {
      for (const float y : hadamard(rows.at(row, head), config.hadamard)) {
        sum += static_cast<double>(y) * static_cast<double>(y);
        ++elements;
      }
    }
  }
  return std::sqrt(sum / static_cast<double>(elements));
}

Thresholds calibrate(const Config& config, const Rows<float>& keys, const Rows<float>& queries) {
  const std::vector<double> points = lloyd_max_points(config.buckets);
  Thresholds thresholds;
  for (int64_t head = 0; head < keys.heads; ++head) {
    const double sigma_k = rotated_rms(config, keys, head, 1);
    const double sigma_q = rotated_rms(config, queries, head * config.group, config.group);
    for (const double point : points) {
      thresholds.key.push_back(static_cast<float>(point * sigma_k));
      thresholds.query.push_back(static_cast<float>(point * (0.3 / 0.9816) * sigma_q));
    }
  }
  return thresholds;
}

}  // namespace adamas::oracle
