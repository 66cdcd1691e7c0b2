// Outputs of attention against the oracle's, within the tolerance of the contract.
#pragma once

#include <cstddef>
#include <vector>

#include "tests/dispatch/device_memory.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::tests {

/// Numbers of an output type, widened.
std::vector<float> read_floats(const DeviceMemory& memory, oracle::Format format);

/// CHECKs rows of `row_elements` each. Rows of `got` begin at `first_row`.
void check_rows(const std::vector<double>& want, const std::vector<float>& got, int row_elements,
                std::size_t first_row, oracle::Format format, const char* what);

/// CHECKs log-sum-exps; those of `got` begin at `first`.
void check_lse(const std::vector<double>& want, const std::vector<float>& got, std::size_t first,
               const char* what);

}  // namespace adamas::tests
