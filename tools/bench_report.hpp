// What bench prints: tables for people, JSON lines for machines; and dense times of other libraries to
// compare with.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <nlohmann/json.hpp>

#include "tools/bench_measure.hpp"

namespace adamas::tools {

/// Best dense time of a shape.
struct DenseReference {
  double us = 0;
  std::string by;  ///< who reached it: "cudnn packed", or "ideal": all K and V at the measured bandwidth
};

/// Dense times that another program measured (tools/bench_torch.py).
class DenseReferences {
 public:
  DenseReferences() = default;
  /// Reads lines {"batch", "query_heads", "kv_heads", "tokens", "head_dim", "us", "backend"}; other keys are
  /// ignored, of equal shapes the fastest counts.
  /// @throws codegen::Error(ADAMAS_IO_ERROR) naming file, line and what is wrong with it
  static DenseReferences read(const std::string& path);

  /// For even shapes what was measured; for ragged ones the ideal, since padded calls would be a straw man.
  std::optional<DenseReference> find(const BenchRow&, double read_gbps) const;

 private:
  using Shape = std::tuple<int, int, int, std::int64_t, int>;  // as the keys above
  std::map<Shape, DenseReference> references_;
};

nlohmann::ordered_json json_of(const BenchRow&, const BenchMachine&, const std::optional<DenseReference>&);
nlohmann::ordered_json json_of(const Crossover&, const codegen::Spec&, const BenchShape&,
                               const BenchMachine&);
/// A shape for programs that measure others on it.
nlohmann::ordered_json json_of(const BenchShape&, const codegen::Spec&);

struct ReportRow {
  BenchRow row;
  std::optional<DenseReference> reference;
};
/// Table and legend on stdout.
void print_report(const std::vector<ReportRow>&, const BenchMachine&);
void print_crossover(const Crossover&, const codegen::Spec&, const BenchShape&);

}  // namespace adamas::tools
