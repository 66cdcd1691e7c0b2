// The orthonormal Hadamard transform. One IEEE operation per step: this file is compiled with contraction and
// fast-math off, because a fused multiply-add would change codes.
#include "tests/oracle/hadamard.hpp"

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace adamas::oracle {
namespace {

static_assert(FLT_EVAL_METHOD == 0, "float expressions must be evaluated in float");

// Paley matrices with the columns flipped so that row 0 is all +1. Bit j set = entry (row, j) is -1.
constexpr uint32_t kOrder12[12] = {0x000, 0x475, 0x8e9, 0x1d3, 0x3a5, 0x749,
                                   0xe91, 0xd23, 0xa47, 0x48f, 0x91d, 0x23b};
constexpr uint32_t kOrder20[20] = {0x00000, 0x615e5, 0xc2bc9, 0x85793, 0x0af27, 0x15e4d, 0x2bc99,
                                   0x57931, 0xaf261, 0x5e4c3, 0xbc985, 0x7930b, 0xf2615, 0xe4c2b,
                                   0xc9857, 0x930af, 0x2615f, 0x4c2bd, 0x98579, 0x30af3};
constexpr uint32_t kOrder28[28] = {0x0000000, 0xaaaaaa9, 0x30ff0ca, 0x9a55a6c, 0xc3fc322, 0x69569b8,
                                   0x0ff0c8e, 0xa55a6e4, 0x3fc3232, 0x9569b98, 0xff0c8c2, 0x55a6e68,
                                   0xfc3230e, 0x569b9a4, 0xf0c8c3e, 0x5a6e694, 0xc3230fe, 0x69b9a54,
                                   0x0c8c3fe, 0xa6e6954, 0x3230ff2, 0x9b9a558, 0xc8c3fc2, 0x6e69568,
                                   0x230ff0e, 0xb9a55a4, 0x8c3fc32, 0xe695698};

/// The odd part of the factorisation: the order of the dense matrix in m = 2^k * order.
int matrix_order(int m) {
  for (const int order : {28, 20, 12, 1}) {
    if (m % order != 0) continue;
    const int rest = m / order;
    if (rest > 0 && (rest & (rest - 1)) == 0) return order;
  }
  throw std::logic_error("oracle: no Hadamard matrix of size " + std::to_string(m));
}

void rotate_block(std::span<float> x, int order) {
  const int m = static_cast<int>(x.size());
  const int radix2 = m / order;  // 2^k; element index = b * radix2 + lo

  for (int stride = 1; stride < radix2; stride *= 2) {
    for (int i = 0; i < m; ++i) {
      if ((i % radix2) & stride) continue;
      const float a = x[i];
      const float c = x[i + stride];
      x[i] = a + c;
      x[i + stride] = a - c;
    }
  }

  if (order > 1) {
    for (int lo = 0; lo < radix2; ++lo) {
      std::vector<float> column(order);
      for (int b = 0; b < order; ++b)
        column[b] = x[b * radix2 + lo];
      for (int row = 0; row < order; ++row) {
        float sum = hadamard_entry(order, row, 0) > 0 ? column[0] : -column[0];
        for (int b = 1; b < order; ++b) {
          sum = hadamard_entry(order, row, b) > 0 ? sum + column[b] : sum - column[b];
        }
        x[row * radix2 + lo] = sum;
      }
    }
  }

  const float norm = static_cast<float>(1.0 / std::sqrt(static_cast<double>(m)));
  for (float& value : x)
    value = value * norm;
}

}  // namespace

int hadamard_entry(int order, int row, int column) {
  const uint32_t* rows = nullptr;
  switch (order) {
    case 1:
      return 1;
    case 12:
      rows = kOrder12;
      break;
    case 20:
      rows = kOrder20;
      break;
    case 28:
      rows = kOrder28;
      break;
    default:
      throw std::logic_error("oracle: no Hadamard matrix of order " + std::to_string(order));
  }
  return ((rows[row] >> column) & 1) != 0 ? -1 : 1;
}

std::vector<float> hadamard(std::span<const float> x, int m) {
  if (m <= 0 || x.size() % static_cast<size_t>(m) != 0) {
    throw std::logic_error("oracle: Hadamard size must divide the head dimension");
  }
  const int order = matrix_order(m);
  std::vector<float> y(x.begin(), x.end());
  for (size_t start = 0; start < y.size(); start += static_cast<size_t>(m)) {
    rotate_block(std::span(y).subspan(start, static_cast<size_t>(m)), order);
  }
  return y;
}

}  // namespace adamas::oracle
