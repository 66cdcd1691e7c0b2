// One query row of the call: where it stands in its sequence, what it sees, and what the counters learn of
// it.
#pragma once

#include "templates/cuda/example.cuh"
#include "templates/cuda/launch.cuh"

namespace adamas_cuda {

using adamas_abi::Args;

// What says where a row stands, and its query, are plain loads everywhere: __ldg allows the compiler to read
// them before the kernel has waited for the one that writes them.

/// The K/V head of the cache that one of the launch stands for. Decode may share out a head's query heads to
/// kHeadParts clusters: its launch has as many K/V heads more, with a kHeadParts-th of the group each.
__device__ __forceinline__ int cache_head(int kv_head) { return kv_head / kHeadParts; }

// Where kScaled, elements are stored divided by a scale, of the tensor or of their K/V head.
__device__ __forceinline__ float key_scale(const Args& args, int kv_head) {
  return args.key_scale[cache_head(kv_head) * args.scale_stride];
}
__device__ __forceinline__ float value_scale(const Args& args, int kv_head) {
  return args.value_scale[cache_head(kv_head) * args.scale_stride];
}

struct Row {
  int sequence;
  int length;   ///< tokens in the cache, clamped to what the plan allows
  int own;      ///< the row's own position; negative: the row is inert
  int first;    ///< first position it sees
  int visible;  ///< positions it sees, first..own; 0: the row is inert
  bool clamped;
};

__device__ __forceinline__ Row load_row(const Args& args, int row_index) {
  Row row;
  row.sequence = row_index / kQueryRows;
  const i64 given = args.lengths[row.sequence];
  const i64 length = min(max(given, i64{0}), args.max_tokens);
  row.clamped = given != length;
  row.length = static_cast<int>(length);
  row.own = row.length - kQueryRows + row_index % kQueryRows;
  row.first = kWindow ? max(0, row.own - args.window + 1) : 0;
  row.visible = row.own < 0 ? 0 : max(0, row.own - row.first + 1);
  return row;
}

/// Tokens that the row may select.
__device__ __forceinline__ int row_budget(const Args& args, int row_index) {
  return args.row_budgets == nullptr ? kBudget : min(max(args.row_budgets[row_index], 0), kBudget);
}

/// Whether the row attends to everything it sees instead of to a list.
__device__ __forceinline__ bool attends_to_all(const Args& args, const Row& row) {
  return args.all_tokens != 0 || row.visible <= args.dense_below;
}

/// Whether nobody wants the row's lists.
__device__ __forceinline__ bool needs_no_lists(const Args& args, const Row& row) {
  return args.skip_short_rows != 0 && attends_to_all(args, row);
}

/// Whether that is more than a list holds, so that the row is cut into dense chunks. Other rows that attend
/// to all are lists of all they see.
__device__ __forceinline__ bool has_dense_chunks(const Args& args, const Row& row) {
  return args.all_tokens != 0 || (attends_to_all(args, row) && row.visible > kBudget);
}

__device__ __forceinline__ void report(const Args& args, unsigned status) {
  if (status != 0 && args.counters != nullptr) atomicOr(&args.counters->status, status);
}

__device__ __forceinline__ void count(unsigned long long& counter, unsigned amount) {
  atomicAdd(&counter, static_cast<unsigned long long>(amount));
}

/// Counts `heads` answered query heads of a row. Called by one thread of the blocks that answer it, in the
/// last stage of the operation; the first of these blocks counts the operation.
__device__ __forceinline__ void count_row(const Args& args, const Row& row, int heads) {
  if (args.counters == nullptr) return;
  if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) count(args.counters->steps, 1);
  if (row.clamped) {
    report(args, adamas_abi::kLengthClamped);
    count(args.counters->clamped_rows, heads);
  }
  if (row.visible > 0) count(args.counters->rows, heads);
}

}  // namespace adamas_cuda
