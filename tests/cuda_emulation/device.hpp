// What an emitted CUDA unit takes from the CUDA language, in C++: keywords, built-in variables and functions.
// Included before the emitted text; see block.hpp for how threads run.
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
#define __constant__
#define __shared__ static  // one block runs at a time
#define __grid_constant__
#define __launch_bounds__(...)
#define __expf expf  // a function of this name exists in some C libraries
#define threadIdx (::adamas::cuda_emulation::current_thread)
#define blockIdx (::adamas::cuda_emulation::current_block)

struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct float2 {
  float x, y;
};

namespace adamas::cuda_emulation {

// ---- conversions, which the product has in PTX
// --------------------------------------------------------------------

inline float f16_to_float(unsigned short bits) { return oracle::from_f16(bits); }
inline float bf16_to_float(unsigned short bits) { return oracle::from_bf16(bits); }
inline unsigned short float_to_f16(float value) { return oracle::to_f16(value); }
inline unsigned short float_to_bf16(float value) { return oracle::to_bf16(value); }

// ---- numbers
// ----------------------------------------------------------------------------------------------------------

using std::max;
using std::min;

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline int __popc(unsigned bits) { return std::popcount(bits); }

// ---- memory
// -----------------------------------------------------------------------------------------------------------

/// A load of the device faults on a misaligned address; so does this one.
template <class T>
T __ldg(const T* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % sizeof(T) != 0) throw std::runtime_error("misaligned load");
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
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
// -------------------------------------------------------------------------------------------------

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
T __shfl_sync(unsigned, T value, int lane) {
  return shuffle("shfl", value, static_cast<unsigned>(lane));
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

}  // namespace adamas::cuda_emulation
