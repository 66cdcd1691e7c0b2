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
  const Facts facts = facts_of(spec);
  const int row_bytes = cpu_code_layout(spec).row_bytes;
  CpuScanLayout layout{};
  // Three bits an element: three elements fill the lower bits of three nibbles, a fourth the spare ones. For
  // dot its bits add up independently; for manhattan it is assembled and has a table of its own.
  const bool assembled = spec.buckets == 8 && spec.estimator == Estimator::manhattan;
  layout.unit_rows = assembled ? 3 : 1;
  layout.unit_tables = assembled ? 8 : 2;
  layout.entry_max = entry_max(spec, facts);

  const int units = row_bytes / layout.unit_rows;
  const int lookups = units * layout.unit_tables;
  const bool narrow =
      layout.unit_tables * layout.entry_max <= kByteMax && lookups * layout.entry_max <= kWordMax;
  layout.planes = narrow ? 1 : 2;
  layout.plane_shift = narrow ? 0 : std::bit_width(static_cast<unsigned>(layout.entry_max)) / 2;
  const int low_max = narrow ? layout.entry_max : (1 << layout.plane_shift) - 1;
  const int plane_max = std::max(low_max, layout.entry_max >> layout.plane_shift);

  // As few widenings as the bound allows, evenly spread.
  const int most = std::max(1, kByteMax / (layout.unit_tables * plane_max));
  layout.units_per_sum = static_cast<int>(ceil_div(units, ceil_div(units, most)));
  layout.table_bytes = lookups * layout.planes * 16;
  layout.prepared_bytes = static_cast<int>(round_up(layout.table_bytes + 3 * sizeof(std::int32_t), 64));
  return layout;
}

}  // namespace adamas::codegen
