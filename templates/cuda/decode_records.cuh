// What a row leaves besides its output: what the counters learn, its lists in the caller's arrays, the codes
// of its own token. Few calls want all of it, so it is not inlined: what nobody wants would stand between the
// instructions that all run. What it needs lies in shared memory, also the launch's arguments: where these
// are, a function that is not inlined would read them from global memory.
#pragma once

#include "templates/cuda/decode_layout.cuh"

namespace adamas_cuda {

/// Copies the arguments to shared memory, some words a warp: their lines are fetched side by side, where one
/// after the other the first read of each would take long. A barrier must follow before they are read there.
__device__ __forceinline__ void copy_arguments(const Args& args, DecodeShared& shared) {
  constexpr int kAll = sizeof(Args) / 4, kEach = (kAll + kDecodeWarps - 1) / kDecodeWarps;
  const auto* const from = reinterpret_cast<const unsigned*>(&args);
  auto* const to = reinterpret_cast<unsigned*>(&shared.args);
#pragma unroll
  for (int i = lane_index(); i < kEach; i += kWarp) {
    const int word = warp_index() * kEach + i;
    if (word < kAll) to[word] = from[word];
  }
}

/// What the counters learn of the row's query heads, a lane a counter. By one warp.
/// @param first_part  whether the launch's K/V head is the first that stands for one of the cache
__device__ __forceinline__ void count_task(const Args& args, const Row& row, int selected, bool first_part) {
  const bool sees = row.visible > 0, all = attends_to_all(args, row);
  unsigned long long* counter = &args.counters->steps;
  int amount = blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0;
  if (lane_index() == 1) counter = &args.counters->rows, amount = sees ? kGroup : 0;
  if (lane_index() == 2) counter = &args.counters->tokens_attended, amount = sees ? selected * kGroup : 0;
  if (lane_index() == 3)
    counter = &args.counters->tokens_scanned, amount = first_part && sees && !all ? row.visible : 0;
  if (lane_index() == 4) counter = &args.counters->dense_short, amount = sees && all ? kGroup : 0;
  if (lane_index() == 5) counter = &args.counters->clamped_rows, amount = row.clamped ? kGroup : 0;
  if (lane_index() < 6 && amount != 0) count(*counter, static_cast<unsigned>(amount));
  if (lane_index() == 5 && row.clamped) report(args, adamas_abi::kLengthClamped);
}

/// What the caller's arrays still lack: counts, the places behind a list, and lists that were not searched.
/// By one warp.
/// @param scans  whether its lists were searched
__device__ __forceinline__ void complete_selection(const Args& args, const Kept& kept, int row_index,
                                                   bool scans, unsigned& status) {
  const Row row = kept.row;
  const Places places = kept.places;
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
    const i64 list = (static_cast<i64>(row_index) * args.kv_heads + kept.kv_head) * kSelections + selection;
    // A list is of the budget's tokens, also where the row attends to more.
    const int listed = min(row_budget(args, row_index), row.visible);
    if (args.counts != nullptr && lane_index() == 0) args.counts[list] = listed;
    if (args.positions == nullptr) continue;
    int* out = args.positions + list * kBudget;
    const int begin = scans ? listed : 0;
#pragma unroll 1
    for (int i = begin + lane_index(); i < kBudget; i += kWarp) {
      const int position = i < listed ? row.first + i : -1;
      const bool as_slot = args.write_slots != 0 && position >= 0;
      out[i] = as_slot ? slot_of(args, place_of_position(places, position, status)) : position;
    }
  }
}

/// Codes of the row's own token. It is forced into every list: nobody waits for them. By one warp.
__device__ __forceinline__ void append_codes(const Args& args, int row_index, int kv_head, float* scratch,
                                             unsigned& status) {
  const Place place = with_key(args, place_of_slot(args, args.slots[row_index], status));
  if (place.page < 0) return;
  float x[kWords], thresholds[kBuckets - 1];
  unsigned codes[kWords];
  load_key(key_row(args, kv_head, place), true, x);
  load_thresholds(args.key_thresholds, kv_head, thresholds);
  codes_of_key(x, kScaled ? key_scale(args, kv_head) : 1.0f, thresholds, scratch, codes);
  store_codes(args, kv_head, place, codes);
  if (args.counters != nullptr && lane_index() == 0) count(args.counters->tokens_encoded, 1);
}

/// All of it that is wanted. By one warp, and not at the end: the next kernel would wait for it.
/// @return status
__device__ __noinline__ unsigned leave_records(DecodeShared& shared, int row_index) {
  const Args& args = shared.args;
  const Kept& kept = shared.kept;
  const Task task = task_of(args, kept.row, row_index);
  unsigned status = 0;
  const bool first_part = kept.kv_head % kHeadParts == 0;
  if (args.counters != nullptr) count_task(args, kept.row, task.selected, first_part);
  if (args.positions != nullptr || args.counts != nullptr) {
    complete_selection(args, kept, row_index, task.scans, status);
  }
  if (args.slots != nullptr && first_part) {
    append_codes(args, row_index, kept.kv_head, shared.scratch[warp_index()], status);
  }
  return status;
}

/// Whether any of it is wanted.
__device__ __forceinline__ bool wants_records(const Args& args) {
  return args.counters != nullptr || args.positions != nullptr || args.counts != nullptr ||
         args.slots != nullptr;
}

}  // namespace adamas_cuda
