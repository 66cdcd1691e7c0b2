// The floating-point environment that kernels run in: set for a scope, and the caller's again after it.
#include "runtime/device/float_environment.hpp"

#include <doctest/doctest.h>

#include <cfenv>

using adamas::runtime::DefaultFloatEnvironment;

namespace {

/// 1/3 rounded as the environment says, computed now.
float third() {
  volatile float one = 1.0F, three = 3.0F;
  return one / three;
}

/// A product below the smallest normal number: 0 where denormals are flushed.
float denormal() {
  volatile float tiny = 1e-38F, quarter = 0.25F;
  return tiny * quarter;
}

void flush_denormals() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040);
#else
  std::uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  asm volatile("msr fpcr, %0" : : "r"(control | (1u << 24)));
#endif
}

}  // namespace

TEST_CASE("the default environment: nearest even, denormals kept; then the caller's own again") {
  std::fenv_t saved;
  std::fegetenv(&saved);
  const float nearest = third();
  std::fesetround(FE_DOWNWARD);
  flush_denormals();
  const float down = third();
  CHECK(down < nearest);
  CHECK(denormal() == 0);
  {
    const DefaultFloatEnvironment environment;
    CHECK(third() == nearest);
    CHECK(denormal() > 0);
  }
  CHECK(std::fegetround() == FE_DOWNWARD);
  CHECK(third() == down);
  CHECK(denormal() == 0);
  std::fesetenv(&saved);
  CHECK(denormal() > 0);
}
