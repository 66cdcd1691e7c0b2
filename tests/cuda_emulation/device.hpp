// What an emitted CUDA unit takes from the CUDA language, in C++: keywords, built-in variables and functions,
// and what the product has in PTX. Included before the emitted text; see block.hpp for how threads run.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "tests/cuda_emulation/block.hpp"
#include "tests/oracle/numbers.hpp"

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __noinline__ inline
#define __constant__
#define __shared__ static  // for units without clusters: one block runs at a time
#define __grid_constant__
#define __launch_bounds__(...)
#define __expf expf  // functions of these names exist in some C libraries
#define __logf logf
#define threadIdx (::adamas::cuda_emulation::current_thread)
#define blockIdx (::adamas::cuda_emulation::current_block)
#define gridDim (::adamas::cuda_emulation::current_grid)
#define dynamic_shared (::adamas::cuda_emulation::current_shared_memory)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace adamas::cuda_emulation {

// ---- convert.cuh

inline float f16_to_float(unsigned short bits) { return oracle::from_f16(bits); }
inline float bf16_to_float(unsigned short bits) { return oracle::from_bf16(bits); }
inline unsigned short float_to_f16(float value) { return oracle::to_f16(value); }
inline unsigned short float_to_bf16(float value) { return oracle::to_bf16(value); }

constexpr bool kConvertsF8 = false;  // as on machines that need integers for it
unsigned f8_pair_to_f16(unsigned short bits);

// ---- numbers

using std::max;
using std::min;

inline float __fdividef(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsub_rn(float a, float b) {
  const float difference = a - b;
  return difference == difference ? difference : std::bit_cast<float>(0x7fffffffu);  // the one NaN of a GPU
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(std::uint64_t{a} * b >> 32); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }

inline int __ffs(int value) { return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1; }

/// The larger of each half.
inline unsigned __vmaxu2(unsigned a, unsigned b) {
  return max(a & 0xffffu, b & 0xffffu) | max(a >> 16, b >> 16) << 16;
}

// ---- memory

/// A load of the device faults on a misaligned address; so does this one.
template <class T>
T __ldg(const T* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % sizeof(T) != 0) throw std::runtime_error("misaligned load");
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}

template <class T>
T __ldcs(const T* address) {
  return __ldg(address);
}

template <class T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}

template <class T>
T atomicOr(T* address, T value) {
  const T before = *address;
  *address |= value;
  return before;
}

// ---- threads together

inline void __syncthreads() { block_barrier(); }
inline void __syncwarp() { exchange("syncwarp", 0); }

template <class T>
T shuffle(const char* operation, T value, unsigned from) {
  static_assert(sizeof(T) == 4);
  const unsigned lane = current_thread.x % 32;
  const std::uint64_t* all = exchange(operation, std::bit_cast<std::uint32_t>(value));
  return std::bit_cast<T>(static_cast<std::uint32_t>(all[from < 32 ? from : lane]));
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return shuffle("shfl_xor", value, current_thread.x % 32 ^ static_cast<unsigned>(mask));
}

template <class T>
T __shfl_up_sync(unsigned, T value, unsigned distance) {
  return shuffle("shfl_up", value, current_thread.x % 32 - distance);  // below lane 0: keeps its own
}

template <class T>
T __shfl_down_sync(unsigned, T value, unsigned distance) {
  return shuffle("shfl_down", value, current_thread.x % 32 + distance);  // beyond lane 31: keeps its own
}

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return shuffle("shfl", value, static_cast<unsigned>(lane));
}

/// Integers of all lanes, brought together two by two.
template <class T, class Combine>
T reduce(const char* operation, T value, Combine combine) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  const std::uint64_t* all = exchange(operation, static_cast<std::uint32_t>(value));
  std::uint32_t result = static_cast<std::uint32_t>(all[0]);
  for (int lane = 1; lane < 32; ++lane) {
    const auto other = static_cast<std::uint32_t>(all[lane]);
    result = static_cast<std::uint32_t>(combine(static_cast<T>(result), static_cast<T>(other)));
  }
  return static_cast<T>(result);
}

template <class T>
T __reduce_add_sync(unsigned, T value) {
  return reduce("reduce_add", value,
                [](T a, T b) { return static_cast<unsigned>(a) + static_cast<unsigned>(b); });
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selectors) {
  const std::uint64_t bytes = std::uint64_t{high} << 32 | low;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    result |= (static_cast<unsigned>(bytes >> (selectors >> i * 4 & 7u) * 8) & 0xffu) << i * 8;
  }
  return result;
}

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned count) {
  return static_cast<unsigned>(((std::uint64_t{high} << 32 | low) << count) >> 32);
}

template <class T>
T __reduce_max_sync(unsigned, T value) {
  return reduce("reduce_max", value, [](T a, T b) { return max(a, b); });
}

template <class T>
T __reduce_min_sync(unsigned, T value) {
  return reduce("reduce_min", value, [](T a, T b) { return min(a, b); });
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
  const std::uint64_t* all = exchange("ballot", predicate);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) {
    bits |= static_cast<unsigned>(all[lane]) << lane;
  }
  return bits;
}

inline int __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == 0xffffffffu; }

// ---- binary_mma.cuh

inline void count_common_bits(int (&counts)[4], unsigned row, unsigned row_below, unsigned column) {
  const unsigned lane = current_thread.x % 32, first_of_row = lane / 4 * 4, column_pair = lane % 4 * 2;
  std::uint64_t rows[4];
  std::copy_n(exchange("rows of mma", row | std::uint64_t{row_below} << 32) + first_of_row, 4, rows);
  const std::uint64_t* columns = exchange("columns of mma", column | std::uint64_t{column} << 32);
  for (unsigned c = 0; c < 2; ++c) {
    for (unsigned word = 0; word < 4; ++word) {
      const std::uint64_t common = rows[word] & columns[(column_pair + c) * 4 + word];
      counts[c] += std::popcount(static_cast<std::uint32_t>(common));
      counts[2 + c] += std::popcount(static_cast<std::uint32_t>(common >> 32));
    }
  }
}

// ---- byte_mma.cuh

inline void add_byte_products(int (&sums)[4], const unsigned (&row)[2], const unsigned (&row_below)[2],
                              const unsigned (&column)[2]) {
  const unsigned lane = current_thread.x % 32, first_of_row = lane / 4 * 4, column_pair = lane % 4 * 2;
  for (unsigned half = 0; half < 2; ++half) {
    std::uint64_t rows[4];
    std::copy_n(exchange("rows of mma", row[half] | std::uint64_t{row_below[half]} << 32) + first_of_row, 4,
                rows);
    const std::uint64_t* columns = exchange("columns of mma", column[half]);
    for (unsigned c = 0; c < 2; ++c) {
      for (unsigned word = 0; word < 4; ++word) {
        for (unsigned shift = 0; shift < 32; shift += 8) {
          const int value = static_cast<std::int8_t>(columns[(column_pair + c) * 4 + word] >> shift & 0xff);
          sums[c] += value * static_cast<int>(rows[word] >> shift & 0xff);
          sums[2 + c] += value * static_cast<int>(rows[word] >> (32 + shift) & 0xff);
        }
      }
    }
  }
}

// ---- copy_async.cuh

template <class Words>
void load_now(const Words* from, Words& words) {
  words = *from;
}
template <int kBytes>
void copy_async(void* to, const void* from) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  copy_later(to, from, kBytes);
}
inline void copy_async_or_zeros(void* to, const void* from, bool exists) {
  alignas(16) static const unsigned char kZeros[16] = {};
  copy_later(to, exists ? from : kZeros, sizeof kZeros);
}
inline void copy_async_of_line(void* to, const void* from, bool exists) {
  copy_async_or_zeros(to, from, exists);
}
inline void prefetch_line(const void*) {}
template <int kBatches>
void wait_for_copies() {
  wait_for_copies(kBatches);
}

// ---- tensor_core.cuh

/// Elements of 8 x 8 pieces, four for each of 8 rows whose addresses the lanes of a piece pass in.
inline void load_pieces(unsigned (&pieces)[4], const void* row) {
  const unsigned lane = current_thread.x % 32;
  const std::uint64_t* rows = exchange("ldmatrix", reinterpret_cast<std::uintptr_t>(row));
  for (unsigned piece = 0; piece < 4; ++piece) {
    const auto address = static_cast<std::uintptr_t>(rows[piece * 8 + lane / 4]);
    if (address % 16 != 0) throw std::runtime_error("ldmatrix of a misaligned row");
    std::memcpy(&pieces[piece], reinterpret_cast<const unsigned char*>(address) + lane % 4 * 4, 4);
  }
}

inline unsigned transposed(unsigned piece) {
  const unsigned lane = current_thread.x % 32, row = lane / 4;
  const std::uint64_t* words = exchange("movmatrix", piece);
  unsigned result = 0;
  for (unsigned i = 0; i < 2; ++i) {
    const unsigned column = lane % 4 * 2 + i;  // the row it comes from
    result |= (static_cast<unsigned>(words[column * 4 + row / 2]) >> row % 2 * 16 & 0xffffu) << i * 16;
  }
  return result;
}

inline void load_pieces_transposed(unsigned (&pieces)[4], const void* row) {
  load_pieces(pieces, row);
  for (unsigned& piece : pieces)
    piece = transposed(piece);
}

template <bool kBf16>
void add_product(float (&sums)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
  const auto element = [](std::uint64_t word, unsigned i) {
    const auto bits = static_cast<unsigned short>(word >> i * 16);
    return kBf16 ? bf16_to_float(bits) : f16_to_float(bits);
  };
  const unsigned row = current_thread.x % 32 / 4, pair = current_thread.x % 4 * 2;
  float rows[2][16], columns[2][16];
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned below = 0; below < 2; ++below) {
      const std::uint64_t* words = exchange("left of mma", left[half * 2 + below]);
      for (unsigned k = 0; k < 8; ++k)
        rows[below][half * 8 + k] = element(words[row * 4 + k / 2], k % 2);
    }
    const std::uint64_t* words = exchange("right of mma", right[half]);
    for (unsigned k = 0; k < 8; ++k) {
      for (unsigned j = 0; j < 2; ++j)
        columns[j][half * 8 + k] = element(words[(pair + j) * 4 + k / 2], k % 2);
    }
  }
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned k = 0; k < 16; ++k)
      sums[i] += rows[i / 2][k] * columns[i % 2][k];
  }
}

// ---- cluster.cuh

struct alignas(8) Mailbox {
  unsigned long long state;
};

inline void open_mailbox(Mailbox& mailbox, unsigned senders) {
  open_mailbox(static_cast<const void*>(&mailbox), senders);
}
inline void publish_mailboxes() {}
inline void expect(Mailbox& mailbox, unsigned bytes) { expect_mail(&mailbox, bytes); }
inline void announce(Mailbox& mailbox, unsigned rank, unsigned bytes) {
  announce_mail(&mailbox, rank, bytes);
}
inline void signal(Mailbox& mailbox, unsigned rank) { announce_mail(&mailbox, rank, 0); }
inline void wait_for_mail(Mailbox& mailbox, unsigned delivery) {
  wait_for_mail(static_cast<const void*>(&mailbox), delivery);
}
template <class Words>
void send(Words* pointer, unsigned rank, const std::type_identity_t<Words>& words, Mailbox& mailbox) {
  static_assert(sizeof(Words) == 4 || sizeof(Words) == 16);
  send_mail(pointer, &mailbox, rank, &words, sizeof words);
}
inline void send_count(unsigned* counter, unsigned rank, unsigned amount, Mailbox& mailbox) {
  add_mail(counter, &mailbox, rank, amount);
}

// ---- launch.cuh: launches do not overlap here

inline void wait_for_previous_kernel() {}
inline void let_next_kernel_start() {}
inline void begin_stage() {}

}  // namespace adamas::cuda_emulation
