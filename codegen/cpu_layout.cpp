// The CPU generator's decisions about codes and sums. See cpu_layout.hpp.
#include "codegen/cpu_layout.hpp"

#include <algorithm>
#include <bit>

#include "codegen/facts.hpp"
#include "codegen/round.hpp"

namespace adamas::codegen {
namespace {

constexpr int kByteMax = 255;
constexpr int kWordMax = 65535;

/// The most that the elements behind one table index can add. dot: |q| * code, where the spare bit of
/// buckets=8 counts up to 4; manhattan: a distance of codes.
int entry_max(const Spec& spec, const Facts& facts) {
  const bool dot = spec.estimator == Estimator::dot;
  const int weight = dot ? facts.query_max : 1;
  switch (spec.buckets) {
    case 2:
      return 4 * 1 * weight;
    case 4:
      return 2 * 3 * weight;
    case 8:
      return (dot ? 7 + 4 : 7) * weight;
    default:
      return 15 * weight;
  }
}

/// What indexes are made of.
struct Indexes {
  int table_entries, unit_rows, unit_tables, entry_max;
};

CpuScanLayout scan_layout(const Spec& spec, const Indexes& indexes) {
  CpuScanLayout layout{};
  layout.table_entries = indexes.table_entries;
  layout.unit_rows = indexes.unit_rows;
  layout.unit_tables = indexes.unit_tables;
  layout.entry_max = indexes.entry_max;
  layout.units = static_cast<int>(ceil_div(cpu_code_layout(spec).row_bytes, layout.unit_rows));
  const int lookups = layout.units * layout.unit_tables;
  const bool narrow =
      layout.unit_tables * layout.entry_max <= kByteMax && lookups * layout.entry_max <= kWordMax;
  layout.planes = narrow ? 1 : 2;
  layout.plane_shift = narrow ? 0 : std::bit_width(static_cast<unsigned>(layout.entry_max)) / 2;
  const int low_max = narrow ? layout.entry_max : (1 << layout.plane_shift) - 1;
  const int plane_max = std::max(low_max, layout.entry_max >> layout.plane_shift);

  // As few widenings as the bound allows, evenly spread.
  const int most = std::max(1, kByteMax / (layout.unit_tables * plane_max));
  layout.units_per_sum = static_cast<int>(ceil_div(layout.units, ceil_div(layout.units, most)));
  layout.table_bytes = lookups * layout.planes * layout.table_entries;
  return layout;
}

}  // namespace

CpuCodeLayout cpu_code_layout(const Spec& spec) {
  CpuCodeLayout layout{};
  layout.row_bytes = spec.head_dim * facts_of(spec).code_bits / 8;
  layout.tile_tokens = 1;
  const int page_tokens = facts_of(spec).page_tokens;
  if (page_tokens == 0) {
    layout.tile_tokens = 64;
  } else {
    for (const int tile : {64, 32, 16}) {
      if (page_tokens % tile != 0) continue;
      layout.tile_tokens = tile;
      break;
    }
  }
  return layout;
}

CpuScanLayout cpu_scan_layout(const Spec& spec) {
  // Three bits an element: three elements fill the lower bits of three nibbles, a fourth the spare ones. For
  // dot its bits add up independently; for manhattan it is assembled and has a table of its own.
  const bool assembled = spec.buckets == 8 && spec.estimator == Estimator::manhattan;
  return scan_layout(spec, {.table_entries = 16,
                            .unit_rows = assembled ? 3 : 1,
                            .unit_tables = assembled ? 8 : 2,
                            .entry_max = entry_max(spec, facts_of(spec))});
}

std::optional<CpuScanLayout> cpu_wide_scan_layout(const Spec& spec) {
  if (spec.buckets != 4) return std::nullopt;
  // The first three elements of three byte rows each, and their fourth ones.
  const CpuScanLayout wide = scan_layout(
      spec, {.table_entries = 64,
             .unit_rows = 3,
             .unit_tables = 4,
             .entry_max = 3 * 3 * (spec.estimator == Estimator::dot ? facts_of(spec).query_max : 1)});
  if (wide.planes > 1) return std::nullopt;
  return wide;
}

int cpu_prepared_bytes(const Spec& spec) {
  constexpr int kRuleBytes = 64;  // of KeyRule
  const auto wide = cpu_wide_scan_layout(spec);
  return static_cast<int>(
      round_up(kRuleBytes + std::max(cpu_scan_layout(spec).table_bytes, wide ? wide->table_bytes : 0), 64));
}

}  // namespace adamas::codegen
