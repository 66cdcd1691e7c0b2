// The 16-bit number formats, converted by plain arithmetic on bits: round to nearest, ties to even.
#pragma once

#include <cstdint>
#include <vector>

namespace adamas::oracle {

/// kF8E4M3 and kQ8_0 have scales, and are for stored keys and values alone: see stored.hpp.
enum class Format { kF16, kBF16, kF32, kF8E4M3, kQ8_0 };

/// float -> IEEE binary16. Overflow gives infinity, small values subnormals, NaN a quiet NaN.
uint16_t to_f16(float value);
float from_f16(uint16_t bits);

/// float -> bfloat16, the upper half of a float.
uint16_t to_bf16(float value);
float from_bf16(uint16_t bits);

/// The nearest value that `format` can hold.
float round_to(Format format, float value);

/// `values` as the 16-bit patterns of `format` (kF16 or kBF16), ready for a product buffer.
std::vector<uint16_t> pack16(Format format, const std::vector<float>& values);
/// 16-bit patterns widened to float, exactly.
std::vector<float> unpack16(Format format, const std::vector<uint16_t>& bits);

/// Largest relative L2 error of one output row that the contract allows for this output format.
double tolerance(Format format);

/// Distance between neighbours among the smallest numbers of `format`: a value below its normal numbers is
/// rounded by up to half of it, however small the value, so a relative bound alone cannot hold there.
double smallest_step(Format format);

}  // namespace adamas::oracle
