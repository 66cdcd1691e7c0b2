// DefaultFloatEnvironment: round to nearest even, denormals kept, no trap, for the scope it lives in.
//
// The codes and scores of a kernel must not depend on what its caller does to its own arithmetic
// (flush-to-zero, another rounding mode), and pool threads keep whatever the thread that created them had.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#else
#error "the CPU backend knows x86-64 and aarch64"
#endif

namespace adamas::runtime {

class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() noexcept : saved_(read()) { write(kDefault); }
  /// Flags raised inside are dropped with the rest: the caller finds its own as they were.
  ~DefaultFloatEnvironment() { write(saved_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
#if defined(__x86_64__)
  using Register = unsigned;  // MXCSR
  static constexpr Register kDefault = 0x1f80;
  static Register read() noexcept { return _mm_getcsr(); }
  static void write(Register value) noexcept { _mm_setcsr(value); }
#else
  using Register = std::uint64_t;  // FPCR
  static constexpr Register kDefault = 0;
  static Register read() noexcept {
    Register value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(Register value) noexcept { asm volatile("msr fpcr, %0" : : "r"(value) : "memory"); }
#endif

  Register saved_;
};

}  // namespace adamas::runtime
