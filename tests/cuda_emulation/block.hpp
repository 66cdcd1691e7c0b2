// Runs kernels on the CPU: a launch is a loop over clusters of blocks, a cluster is one fiber a CUDA thread
// on a single OS thread, and who waits yields to the scheduler. Slow, deterministic, and strict: a shuffle
// that not every lane of the warp reaches, a barrier that a thread never reaches, or mail that never comes
// throws instead of hanging. Warps and blocks run ahead of each other as far as barriers and mail allow, in
// an order that is shuffled, so that a missing barrier shows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "codegen/generator.hpp"
#include "templates/args.h"

namespace adamas::cuda_emulation {

/// An emitted entry point; `args` is its unit's own adamas_abi::Args, laid out as the host's.
using EntryPoint = void (*)(const void* args);

/// Registers an entry point of Spec `index` before main starts.
struct Registration {
  Registration(int index, const char* stage, EntryPoint entry);
};

/// What a launch is known by afterwards.
struct LaunchFacts {
  unsigned most_deliveries = 0;  ///< to the mailbox that had the most; 0 if there was none
};

/// Runs one stage of Spec `index` over a grid. @throws std::runtime_error when threads wait for each other in
/// vain, or misuse what they share.
LaunchFacts launch(int index, codegen::Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args);

// ---- for the running CUDA thread

/// Where it is, and the dynamic shared memory of its block.
struct Index {
  unsigned x, y, z;
};
extern Index current_thread, current_block, current_grid;
extern unsigned char* current_shared_memory;

/// Blocks of its cluster, and which of them its block is.
unsigned cluster_blocks();
unsigned cluster_rank();

/// Waits for every thread of the block that has not returned.
void block_barrier();

/// Gives every lane of the warp the 32 values that its lanes passed in. `operation` must be the same in all
/// lanes, and all must be there.
const std::uint64_t* exchange(const char* operation, std::uint64_t value);

/// The barrier of all threads of the cluster, in two halves.
void cluster_arrive();
void cluster_wait();

/// Copies of the running thread to shared memory, in batches. A batch may be there at once, and need not be
/// until it is waited for.
void copy_later(void* to, const void* from, std::size_t bytes);
void end_copies();
/// Waits for all but the last `batches` batches.
void wait_for_copies(unsigned batches);

/// Mailboxes at addresses in this block's shared memory; see mail.hpp.
void open_mailbox(const void* mailbox, unsigned senders);
void expect_mail(const void* mailbox, unsigned bytes);
void wait_for_mail(const void* mailbox, unsigned delivery);

/// Announces bytes to the mailbox that is at `mailbox` in block `rank`.
void announce_mail(const void* mailbox, unsigned rank, unsigned bytes);

/// Sends data to where `to` and `mailbox` are in block `rank`.
void send_mail(const void* to, const void* mailbox, unsigned rank, const void* data, std::size_t bytes);
/// Adds to the word that is at `to` in block `rank`.
void add_mail(const void* to, const void* mailbox, unsigned rank, unsigned amount);

}  // namespace adamas::cuda_emulation
