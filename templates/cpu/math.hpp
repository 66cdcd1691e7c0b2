// exp, tanh and log in float32, accurate to about one unit in the last place: there is no libm to call.
//
// Polynomials of the Cephes library's expf, tanhf and logf. NaN in gives NaN out.
#pragma once

#include "templates/cpu/types.hpp"

namespace adamas_cpu {

#pragma clang fp contract(fast)

/// e^x for x up to 88; 0 below -87.3, where the result would be subnormal.
template <class V>
ADAMAS_INLINE V exp_of(V x) {
  using Integers = Vec<u32, sizeof(V) / 4>;
  // Adding 1.5 * 2^23 rounds x / ln 2 to an integer n, which then stands in the low bits of the sum.
  const V shifted = x * 0x1.715476p0f + 0x1.8p23f;
  const V n = shifted - 0x1.8p23f;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const V power = bits_as<V>((bits_as<Integers>(shifted) << 23) + 0x3f800000u);
  return x < -87.3f ? V(0.0f) : p * power;
}
ADAMAS_INLINE float exp_of(float x) { return exp_of(F32x8(x))[0]; }

/// tanh: a polynomial near zero, (1 - e) / (1 + e) with e = exp(-2|x|) elsewhere.
template <class V>
ADAMAS_INLINE V tanh_of(V x) {
  using Integers = Vec<u32, sizeof(V) / 4>;
  const Integers sign = bits_as<Integers>(x) & 0x80000000u;
  const V magnitude = bits_as<V>(bits_as<Integers>(x) ^ sign);
  const V e = exp_of(magnitude * -2.0f);
  const V far = (1.0f - e) / (1.0f + e);
  const V z = magnitude * magnitude;
  V p = -5.70498872745e-3f;
  p = p * z + 2.06390887954e-2f;
  p = p * z + -5.37397155531e-2f;
  p = p * z + 1.33314422036e-1f;
  p = p * z + -3.33332819422e-1f;
  const V near = p * z * magnitude + magnitude;
  return bits_as<V>(bits_as<Integers>(magnitude < 0.625f ? near : far) | sign);
}

/// Natural logarithm of a normal positive number.
ADAMAS_INLINE float log_of(float x) {
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const u32 bits = bits_as<u32>(x);
  const int e = static_cast<int>(bits - 0x3f3504f3u) >> 23;
  const float m = bits_as<float>(bits - (static_cast<u32>(e) << 23)) - 1.0f;
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float k = static_cast<float>(e);
  const float tail = p * m * z + k * -2.12194440e-4f - 0.5f * z;
  return x != x ? x : m + tail + k * 0.693359375f;
}

#pragma clang fp contract(off)

}  // namespace adamas_cpu
