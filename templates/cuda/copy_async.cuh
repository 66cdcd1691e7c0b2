// Copies from global to shared memory that nobody waits for until they are wanted. Needs sm_80.
#pragma once

namespace adamas_cuda {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

/// Loads a vector from global memory before the warp's next __syncwarp(). Other loads are put off by
/// compilers until what they bring is wanted.
__device__ __forceinline__ void load_now(const uint4* from, uint4& words) {
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
}
__device__ __forceinline__ void load_now(const uint2* from, uint2& words) {
  asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(words.x), "=r"(words.y) : "l"(from) : "memory");
}

/// Copies kBytes (4, 8 or 16) from global to shared memory without waiting.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(shared_address(to)), "l"(from), "n"(kBytes)
                 : "memory");
  }
}

/// The same for 16 bytes, or for zeros where there is nothing to copy: `from` is not read then.
__device__ __forceinline__ void copy_async_or_zeros(void* to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(exists ? 16 : 0)
               : "memory");
}

/// The same, where all of the line of 128 bytes is wanted soon: it comes to the second-level cache at once.
__device__ __forceinline__ void copy_async_of_line(void* to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(exists ? 16 : 0)
               : "memory");
}

/// Brings a line of 128 bytes to the second-level cache. What others write meanwhile is not missed.
__device__ __forceinline__ void prefetch_line(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

/// Ends a batch of this thread's copies.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until all but the last kBatches batches of this thread's copies are there.
template <int kBatches>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kBatches) : "memory");
}

}  // namespace adamas_cuda
