// What the CPU generator decides from a Spec: how codes lie in memory, and how the scan's sums are organised.
// The templates are told these numbers and assert the bounds behind them.
#pragma once

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
  int unit_rows;       ///< byte rows of a unit
  int unit_tables;     ///< table indexes a unit gives
  int entry_max;       ///< largest value an entry may take
  int planes;          ///< 1 or 2
  int plane_shift;     ///< low bits kept in the first plane; 0 with one plane
  int units_per_sum;   ///< units whose entries add up in a byte
  int table_bytes;     ///< of the tables of a prepared query; KeyRule of templates/cpu/prepared.hpp follows
  int prepared_bytes;  ///< of one query, a multiple of 64
};
CpuScanLayout cpu_scan_layout(const Spec&);

/// Slots of one encode, export or import work item.
inline constexpr int kCpuSlotBlock = 64;

}  // namespace adamas::codegen
