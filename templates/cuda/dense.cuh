// What attention over consecutive tokens is asked for, however it is done.
#pragma once

#include "templates/cuda/list_attention.cuh"

namespace adamas_cuda {

constexpr int kAttendWarps = kThreads / kWarp;

extern __shared__ __align__(16) unsigned char dynamic_shared[];

/// Consecutive tokens of a row that attends to all.
struct Chunk {
  int index;  ///< chunk of the row, in ascending order of position
  int first;  ///< position
  int tokens;
};

}  // namespace adamas_cuda
