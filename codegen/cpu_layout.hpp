// What the CPU generator decides from a Spec: how codes lie in memory, and how the scan's sums are organised.
// The templates are told these numbers and assert the bounds behind them.
#pragma once

#include <optional>

#include "codegen/spec.hpp"

namespace adamas::codegen {

/// Codes: tiles of `tile_tokens` tokens, byte row after byte row; a byte holds two nibbles of one token.
struct CpuCodeLayout {
  int tile_tokens;  ///< 64, 32 or 16; 1 = plain rows, token after token
  int row_bytes;    ///< bytes of one token and K/V head: head_dim * code_bits / 8
};
CpuCodeLayout cpu_code_layout(const Spec&);

/// Scan: a unit of byte rows gives table indexes; each index is looked up in a table of bytes a query, in two
/// planes (low and high bits of an entry) where bytes would overflow.
struct CpuScanLayout {
  int table_entries;  ///< 16, or 64 where an index is of three elements of two bits
  int unit_rows;      ///< byte rows of a unit
  int unit_tables;    ///< table indexes a unit gives
  int entry_max;      ///< largest value an entry may take
  int planes;         ///< 1 or 2
  int plane_shift;    ///< low bits kept in the first plane; 0 with one plane
  int units_per_sum;  ///< units whose entries add up in a byte
  int units;          ///< of a code row
  int table_bytes;    ///< of the tables of a prepared query; KeyRule of templates/cpu/prepared.hpp precedes
                      ///< them
};
CpuScanLayout cpu_scan_layout(const Spec&);

/// The same for machines that look 64 bytes up in a table of 64 at once (AVX-512 VBMI): a third fewer
/// lookups. None where that does not pay: other buckets than 4, or entries too large for one plane.
std::optional<CpuScanLayout> cpu_wide_scan_layout(const Spec&);

/// Bytes of one prepared query, a multiple of 64, whichever of the two a machine uses.
int cpu_prepared_bytes(const Spec&);

/// Slots of one encode, export or import work item.
inline constexpr int kCpuSlotBlock = 64;

}  // namespace adamas::codegen
