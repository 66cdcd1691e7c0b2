// The orthonormal Hadamard transform, in the float32 steps and the order that the contract fixes.
#pragma once

#include <span>
#include <vector>

namespace adamas::oracle {

/// Entry (row, column) of the contract's matrix of order 1, 12, 20 or 28: +1 or -1.
int hadamard_entry(int order, int row, int column);

/// x rotated in consecutive blocks of m; x.size() must be a multiple of m, m = 2^k * {1, 12, 20, 28}.
std::vector<float> hadamard(std::span<const float> x, int m);

}  // namespace adamas::oracle
