// Kernels that follow each other in a stream overlap, where they are launched so: the next one's blocks find
// their place while the last ones of this one are at work. Needs sm_90; others start when the one before them
// is done.
#pragma once

namespace adamas_cuda {

/// The kernel before this one in the stream may still be running: waits until it is done and its writes are
/// seen. Nothing that it may write is read earlier, and such things are not loads by __ldg, which compilers
/// move, unless what was read after the wait says where they are.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel in the stream start, where it was launched to overlap with this one.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// What a stage of an operation begins with. Blocks of the next stage take room beside the last blocks of
/// this one, no more than they leave.
__device__ __forceinline__ void begin_stage() {
  wait_for_previous_kernel();
  let_next_kernel_start();
}

}  // namespace adamas_cuda
