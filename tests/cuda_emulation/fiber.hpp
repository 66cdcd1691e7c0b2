// A CUDA thread as a fiber: it has a stack of its own, and runs until it yields to the scheduler that resumed
// it. One OS thread runs them all.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

namespace adamas::cuda_emulation {

/// A place to continue at. Fibers start by setcontext and go on by _longjmp, which makes no system call;
/// sanitizers understand only the former.
struct Context {
  ucontext_t context;
  jmp_buf jump;
};

class Fiber {
 public:
  /// Will run `body`, which must end with finish(), on stack number `stack`. Stacks are kept for later
  /// fibers.
  void prepare(std::size_t stack, void (*body)());

  /// From the scheduler: runs the fiber until it yields or finishes.
  void resume();

  /// From the fiber: back to the scheduler, until resumed.
  void yield();

  /// From the fiber: back to the scheduler for good.
  void finish();

  bool is_finished() const { return state_ == State::finished; }

 private:
  enum class State { fresh, running, finished };

  Context context_;
  State state_ = State::fresh;
};

}  // namespace adamas::cuda_emulation
