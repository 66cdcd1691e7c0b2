// Bits on tensor cores: one instruction counts the common ones of 16 x 8 pairs of 128-bit rows. Native from
// sm_80 to sm_90; later architectures emulate it.
#pragma once

namespace adamas_cuda {

/// counts[2h + c] += popc(row of this lane's half h & column), for lane 4 r + p: half h is row r + 8 h, and c
/// columns 2 p + c.
/// @param rows    word p of rows r and r + 8
/// @param column  word p of column r
__device__ __forceinline__ void count_common_bits(int (&counts)[4], unsigned row, unsigned row_below,
                                                  unsigned column) {
  asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, "
      "%2, %3};"
      : "+r"(counts[0]), "+r"(counts[1]), "+r"(counts[2]), "+r"(counts[3])
      : "r"(row), "r"(row_below), "r"(column));
}

}  // namespace adamas_cuda
