// Runs kernels on the CPU: a launch is a loop over blocks, a block is one fiber a CUDA thread on a single OS
// thread, and a barrier switches to the next fiber. Slow, deterministic, and strict: a shuffle that not every
// lane of the warp reaches, or a barrier that a thread never reaches, throws instead of hanging.
#pragma once

#include <cstdint>
#include <functional>

#include "codegen/generator.hpp"
#include "templates/args.h"

namespace adamas::cuda_emulation {

/// An emitted entry point; `args` is its unit's own adamas_abi::Args, laid out as the host's.
using EntryPoint = void (*)(const void* args);

/// Registers an entry point of Spec `index` before main starts.
struct Registration {
  Registration(int index, const char* stage, EntryPoint entry);
};

/// Runs one stage of Spec `index` over a grid. @throws std::runtime_error when threads wait for each other in
/// vain.
void launch(int index, codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args);

/// Where a running CUDA thread is.
struct Index {
  unsigned x, y, z;
};
extern Index current_thread, current_block;

/// Waits for every thread of the block that has not returned.
void block_barrier();

/// Gives every lane of the warp the 32 values that its lanes passed in. `operation` must be the same in all
/// lanes, and all must be there.
const std::uint64_t* exchange(const char* operation, std::uint64_t value);

}  // namespace adamas::cuda_emulation
