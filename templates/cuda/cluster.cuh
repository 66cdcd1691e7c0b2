// Thread-block clusters: blocks that run together and write into each other's shared memory. The PTX of the
// decode kernel that has no name in CUDA C++ without a toolkit's headers. Needs sm_90.
#pragma once

#include "templates/cuda/copy_async.cuh"

namespace adamas_cuda {

/// Blocks of this block's cluster, and which of them it is. Grid: clusters lie along x.
__device__ __forceinline__ unsigned cluster_blocks() {
  unsigned blocks;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(blocks));
  return blocks;
}
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// Every thread of every block of the cluster that has not returned arrives, then waits for the others:
/// afterwards all blocks run and their mailboxes are open. It promises nothing else.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// In shared memory: counts bytes that other blocks (or this one) send, and lets threads wait for all that
/// were announced.
struct alignas(8) Mailbox {
  unsigned long long state;
};

/// By one thread, before publish_mailboxes: opens the mailbox for deliveries that `senders` announce: each
/// once a delivery, with `expect` in the mailbox's own block or `announce` from any.
__device__ __forceinline__ void open_mailbox(Mailbox& mailbox, unsigned senders) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&mailbox)), "r"(senders)
               : "memory");
}

/// By the thread that has opened mailboxes, before cluster_arrive: other blocks may use them afterwards.
__device__ __forceinline__ void publish_mailboxes() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// By one thread: announces `bytes` of the next delivery.
__device__ __forceinline__ void expect(Mailbox& mailbox, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&mailbox)),
               "r"(bytes)
               : "memory");
}

/// Waits until delivery number `delivery` (0, 1, ...) is complete; what was sent can be read afterwards.
__device__ __forceinline__ void wait_for_mail(Mailbox& mailbox, unsigned delivery) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(&mailbox)),
      "r"(delivery & 1)
      : "memory");
}

/// The address that `pointer`, in this block's shared memory, has in block `rank`.
__device__ __forceinline__ unsigned address_in_block(const void* pointer, unsigned rank) {
  unsigned address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(pointer)), "r"(rank));
  return address;
}

/// Announces `bytes` of the next delivery to the mailbox of block `rank`. They may be there before the
/// announcement is, and nothing else that this thread wrote need be.
__device__ __forceinline__ void announce(Mailbox& mailbox, unsigned rank, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.relaxed.cluster.shared::cluster.b64 _, [%0], %1;" ::"r"(
                   address_in_block(&mailbox, rank)),
               "r"(bytes)
               : "memory");
}

/// An arrival without bytes at the mailbox of block `rank`. What this thread, or another of its block before
/// a barrier, did with memory is done.
__device__ __forceinline__ void signal(Mailbox& mailbox, unsigned rank) {
  asm volatile(
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(address_in_block(&mailbox, rank))
      : "memory");
}

/// Stores a word where `pointer` is in block `rank`, and counts it in that block's mailbox.
__device__ __forceinline__ void send(unsigned* pointer, unsigned rank, unsigned word, Mailbox& mailbox) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(
                   address_in_block(pointer, rank)),
               "r"(word), "r"(address_in_block(&mailbox, rank))
               : "memory");
}

/// Adds to a word there, in no order: counts 4 bytes, as if the word were sent.
__device__ __forceinline__ void send_count(unsigned* counter, unsigned rank, unsigned amount,
                                           Mailbox& mailbox) {
  asm volatile(
      "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%0], %1, [%2];" ::"r"(
          address_in_block(counter, rank)),
      "r"(amount), "r"(address_in_block(&mailbox, rank))
      : "memory");
}

/// The same as send for four words at a multiple of 16 bytes.
__device__ __forceinline__ void send(uint4* pointer, unsigned rank, const uint4& words, Mailbox& mailbox) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
          address_in_block(pointer, rank)),
      "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w), "r"(address_in_block(&mailbox, rank))
      : "memory");
}

}  // namespace adamas_cuda
