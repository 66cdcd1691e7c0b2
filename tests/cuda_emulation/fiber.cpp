// Fibers: stacks, and jumps between them. See fiber.hpp.
#undef _FORTIFY_SOURCE  // its longjmp takes a jump between stacks for an error
#include "tests/cuda_emulation/fiber.hpp"

#include <memory>
#include <vector>

namespace adamas::cuda_emulation {
namespace {

constexpr std::size_t kStackBytes = 128 * 1024;

Context scheduler;

void switch_context(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.jump) == 0) _longjmp(to.jump, 1);
#endif
}

void start_context(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.jump) == 0) setcontext(&to.context);
#endif
}

char* stack_number(std::size_t number) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= number) {
    stacks.emplace_back(new char[kStackBytes]);
  }
  return stacks[number].get();
}

}  // namespace

void Fiber::prepare(std::size_t stack, void (*body)()) {
  ucontext_t& context = context_.context;
  getcontext(&context);
  context.uc_stack.ss_sp = stack_number(stack);
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, body, 0);
}

void Fiber::resume() {
  if (state_ == State::running) {
    switch_context(scheduler, context_);
  } else {
    state_ = State::running;
    start_context(scheduler, context_);
  }
}

void Fiber::yield() { switch_context(context_, scheduler); }

void Fiber::finish() {
  state_ = State::finished;
  switch_context(context_, scheduler);
}

}  // namespace adamas::cuda_emulation
