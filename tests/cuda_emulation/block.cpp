// Fibers for the threads of a block. See block.hpp.
#undef _FORTIFY_SOURCE  // its longjmp takes a jump between stacks for an error
#include "tests/cuda_emulation/block.hpp"

#include <setjmp.h>
#include <ucontext.h>

#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace adamas::cuda_emulation {

Index current_thread{}, current_block{};

namespace {

constexpr int kWarp = 32;
constexpr std::size_t kStackBytes = 128 * 1024;

std::map<std::pair<int, std::string>, EntryPoint>& entry_points() {
  static std::map<std::pair<int, std::string>, EntryPoint> table;
  return table;
}

/// A barrier: who arrives waits until all living members have.
struct Barrier {
  int living = 0, waiting = 0;
  unsigned generation = 0;
};

struct Warp {
  Barrier barrier;
  // Two sets, used in turn: a lane may enter the next exchange while others still read this one.
  std::uint64_t values[2][kWarp];
  const char* operation[2][kWarp];
  unsigned exchanges[kWarp] = {};
};

/// A place to continue at. Fibers start by setcontext and go on by _longjmp, which makes no system call;
/// sanitizers understand only the former.
struct Context {
  ucontext_t context;
  jmp_buf jump;
};

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

enum class State { fresh, running, finished };

struct Fiber {
  Context context;
  State state = State::fresh;
  // What it waits for: this barrier leaving this generation.
  const Barrier* barrier = nullptr;
  unsigned generation = 0;
};

/// Stack of thread t; blocks come and go, stacks stay.
char* stack_of(std::size_t t) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= t) {
    stacks.emplace_back(new char[kStackBytes]);
  }
  return stacks[t].get();
}

/// The block that runs. One at a time: kernels keep shared memory in static variables.
class Block {
 public:
  Block(int threads, EntryPoint entry, const void* args)
      : fibers_(threads), warps_((threads + kWarp - 1) / kWarp), entry_(entry), args_(args) {
    block_.living = threads;
    for (int t = 0; t < threads; ++t) {
      ++warps_[t / kWarp].barrier.living;
    }
  }

  void run() {
    for (std::size_t t = 0; t < fibers_.size(); ++t) {
      prepare(fibers_[t].context.context, stack_of(t));
    }
    while (block_.living > 0) {
      bool progress = false;
      for (std::size_t i = 0; i < warps_.size(); ++i) {
        progress |= run_warp(backwards_ ? warps_.size() - 1 - i : i);
      }
      if (!progress) throw std::runtime_error("threads wait at different barriers");
    }
  }

  void wait(Barrier& barrier) {
    Fiber& fiber = fibers_[current_thread.x];
    fiber.barrier = &barrier;
    fiber.generation = barrier.generation;
    ++barrier.waiting;
    release_if_complete(barrier);
    switch_context(fiber.context, scheduler_);
  }

  const std::uint64_t* exchange(const char* operation, std::uint64_t value) {
    Warp& warp = warps_[current_thread.x / kWarp];
    const unsigned lane = current_thread.x % kWarp;
    const unsigned set = warp.exchanges[lane]++ % 2;
    if (warp.barrier.living != kWarp)
      throw std::runtime_error(std::string(operation) + " in a warp with lanes gone");
    warp.values[set][lane] = value;
    warp.operation[set][lane] = operation;
    wait(warp.barrier);
    for (const char* other : warp.operation[set]) {
      if (std::strcmp(other, operation) != 0)
        throw std::runtime_error(std::string(operation) + " meets " + other);
    }
    return warp.values[set];
  }

  Barrier& block_barrier() { return block_; }

  static Block* current;

 private:
  static void prepare(ucontext_t& context, char* stack) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, &Block::enter, 0);
  }

  static void enter() {
    try {
      current->entry_(current->args_);
    } catch (...) {
      current->error_ = std::current_exception();
    }
    current->leave();
  }

  /// Runs a warp until all its lanes wait for the block or have returned: as far ahead of the other warps as
  /// the device's scheduler might let it get. False if no lane could go on.
  bool run_warp(std::size_t warp) {
    bool any = false, progress = true;
    while (progress) {
      progress = false;
      for (std::size_t i = 0; i < kWarp; ++i) {
        const std::size_t t = warp * kWarp + (backwards_ ? kWarp - 1 - i : i);
        if (t >= fibers_.size() || !can_run(fibers_[t])) continue;
        resume(t);
        if (error_) std::rethrow_exception(error_);
        progress = any = true;
      }
    }
    return any;
  }

  static bool can_run(const Fiber& fiber) {
    const bool waits = fiber.barrier != nullptr && fiber.barrier->generation == fiber.generation;
    return fiber.state != State::finished && !waits;
  }

  /// Runs a thread until it waits or returns.
  void resume(std::size_t t) {
    current_thread = {static_cast<unsigned>(t), 0, 0};
    Fiber& fiber = fibers_[t];
    if (fiber.state == State::running) {
      switch_context(scheduler_, fiber.context);
    } else {
      fiber.state = State::running;
      start_context(scheduler_, fiber.context);
    }
  }

  /// A thread that returns no longer counts at barriers.
  void leave() {
    Fiber& fiber = fibers_[current_thread.x];
    fiber.state = State::finished;
    Barrier& warp = warps_[current_thread.x / kWarp].barrier;
    --warp.living;
    --block_.living;
    release_if_complete(warp);
    release_if_complete(block_);
    switch_context(fiber.context, scheduler_);
  }

  void release_if_complete(Barrier& barrier) {
    if (barrier.waiting == 0 || barrier.waiting < barrier.living) return;
    barrier.waiting = 0;
    ++barrier.generation;
  }

  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Barrier block_;
  EntryPoint entry_;
  const void* args_;
  Context scheduler_{};
  // Neighbouring blocks run their threads in opposite orders, so that a missing barrier shows in one of them.
  const bool backwards_ = (current_block.x + current_block.y + current_block.z) % 2 != 0;
  std::exception_ptr error_;
};

Block* Block::current = nullptr;

}  // namespace

Registration::Registration(int index, const char* stage, EntryPoint entry) {
  entry_points()[{index, stage}] = entry;
}

void launch(int index, codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args) {
  const EntryPoint entry = entry_points().at({index, std::string(codegen::name(stage))});
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        current_block = {x, y, z};
        Block block(static_cast<int>(grid.threads), entry, &args);
        Block::current = &block;
        block.run();
        Block::current = nullptr;
      }
    }
  }
}

void block_barrier() { Block::current->wait(Block::current->block_barrier()); }

const std::uint64_t* exchange(const char* operation, std::uint64_t value) {
  return Block::current->exchange(operation, value);
}

}  // namespace adamas::cuda_emulation
