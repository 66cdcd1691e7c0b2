// Bytes on tensor cores: what takes the place of bits (binary_mma.cuh) on architectures that emulate those,
// from sm_100. A key's codes are bytes there, made of their planes, a query's integers too, or steps of its
// code.
#pragma once

namespace adamas_cuda {

/// sums[2h + c] += 32 products of this lane's half h and column, for lane 4 r + p: half h is row r + 8 h, and
/// c columns 2 p + c. Of 32 products, lanes 4 r .. 4 r + 3 have 8 bytes each: which elements these are is up
/// to the caller, as long as rows and columns agree.
/// @param row, row_below  8 bytes of rows r and r + 8, unsigned
/// @param column          8 bytes of column r, signed
__device__ __forceinline__ void add_byte_products(int (&sums)[4], const unsigned (&row)[2],
                                                  const unsigned (&row_below)[2],
                                                  const unsigned (&column)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
      : "r"(row[0]), "r"(row_below[0]), "r"(row[1]), "r"(row_below[1]), "r"(column[0]), "r"(column[1]));
}

}  // namespace adamas_cuda
