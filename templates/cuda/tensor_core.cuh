// Products of 16-bit matrices on tensor cores, and how their parts come from shared memory. A warp holds a
// matrix in pieces of 8 x 8 elements, of which lane 4 r + p has elements 2 p and 2 p + 1 of row r in a word.
// Needs sm_80.
#pragma once

#include "templates/cuda/copy_async.cuh"

namespace adamas_cuda {

/// Four pieces, whose rows lie in shared memory, 16 bytes at a multiple of 16 each.
/// @param row  address of row lane % 8 of piece lane / 8
__device__ __forceinline__ void load_pieces(unsigned (&pieces)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pieces[0]), "=r"(pieces[1]), "=r"(pieces[2]), "=r"(pieces[3])
               : "r"(shared_address(row))
               : "memory");
}

/// The same, each piece transposed.
__device__ __forceinline__ void load_pieces_transposed(unsigned (&pieces)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(pieces[0]), "=r"(pieces[1]), "=r"(pieces[2]), "=r"(pieces[3])
               : "r"(shared_address(row))
               : "memory");
}

/// The transpose of a piece.
__device__ __forceinline__ unsigned transposed(unsigned piece) {
  unsigned result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(piece));
  return result;
}

/// sums += left * right: 16 x 8 sums of float32, 16 elements deep.
/// @param sums   of lane 4 r + p: elements 2 p and 2 p + 1 of row r, then of row r + 8
/// @param left   pieces of rows 0 .. 7 and 8 .. 15, of the first 8 elements, then of the last 8
/// @param right  the transposed pieces of the first 8 elements and the last 8
template <bool kBf16>
__device__ __forceinline__ void add_product(float (&sums)[4], const unsigned (&left)[4],
                                            const unsigned (&right)[2]) {
  if constexpr (kBf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  }
}

}  // namespace adamas_cuda
