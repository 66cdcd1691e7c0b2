// Hadamard matrices of the orders that powers of two do not reach, and the factorisation of a transform's
// size.
#include <array>
#include <bit>
#include <cmath>

#include "codegen/error.hpp"
#include "codegen/facts.hpp"

namespace adamas::codegen {
namespace {

// Order 12 and 20: Paley I (q = 11, 19). Order 28: Paley II (q = 13). Columns are flipped so that row 0 is
// all +1.
constexpr std::array<std::uint32_t, 1> kOrder1{0};
constexpr std::array<std::uint32_t, 12> kOrder12{
    0x000, 0x475, 0x8e9, 0x1d3, 0x3a5, 0x749, 0xe91, 0xd23, 0xa47, 0x48f, 0x91d, 0x23b,
};
constexpr std::array<std::uint32_t, 20> kOrder20{
    0x00000, 0x615e5, 0xc2bc9, 0x85793, 0x0af27, 0x15e4d, 0x2bc99, 0x57931, 0xaf261, 0x5e4c3,
    0xbc985, 0x7930b, 0xf2615, 0xe4c2b, 0xc9857, 0x930af, 0x2615f, 0x4c2bd, 0x98579, 0x30af3,
};
constexpr std::array<std::uint32_t, 28> kOrder28{
    0x0000000, 0xaaaaaa9, 0x30ff0ca, 0x9a55a6c, 0xc3fc322, 0x69569b8, 0x0ff0c8e,
    0xa55a6e4, 0x3fc3232, 0x9569b98, 0xff0c8c2, 0x55a6e68, 0xfc3230e, 0x569b9a4,
    0xf0c8c3e, 0x5a6e694, 0xc3230fe, 0x69b9a54, 0x0c8c3fe, 0xa6e6954, 0x3230ff2,
    0x9b9a558, 0xc8c3fc2, 0x6e69568, 0x230ff0e, 0xb9a55a4, 0x8c3fc32, 0xe695698,
};

/// The order in m = order * 2^k, or 0 if m is no such product. Unique: 12, 20 and 28 have different odd
/// parts.
int order_of(int m) {
  for (const int order : {1, 12, 20, 28}) {
    if (m > 0 && m % order == 0 && std::has_single_bit(static_cast<unsigned>(m / order))) return order;
  }
  return 0;
}

}  // namespace

bool is_hadamard_size(int m) { return order_of(m) != 0; }

HadamardFactors hadamard_factors(int m) {
  const int order = order_of(m);
  if (order == 0) {
    throw Error(ADAMAS_INVALID_SPEC, "hadamard", std::to_string(m), "must be 2^k * 1, 12, 20 or 28");
  }
  const int log2 = std::countr_zero(static_cast<unsigned>(m / order));
  // Rounding twice (double, then float) is harmless for every size of the contract: a test compares exactly.
  return {order, log2, static_cast<float>(1.0 / std::sqrt(static_cast<double>(m)))};
}

std::span<const std::uint32_t> hadamard_rows(int order) {
  switch (order) {
    case 1:
      return kOrder1;
    case 12:
      return kOrder12;
    case 20:
      return kOrder20;
    case 28:
      return kOrder28;
  }
  throw Error(ADAMAS_INTERNAL, "order", std::to_string(order),
              "there is a written matrix of order 1, 12, 20 and 28");
}

}  // namespace adamas::codegen
