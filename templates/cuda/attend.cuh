// attend: a chunk of a row's tokens -> partial softmax sums. A block takes one chunk, and all query heads
// that share its tokens, so that K and V are read once: those of a list, or the whole group for rows that
// attend to all they see.
#pragma once

#include "templates/cuda/dense_tiles.cuh"  // or dense_chunk.cuh, as the Spec asks

namespace adamas_cuda {

/// Shared memory of a block that has a chunk of a list.
struct alignas(16) ListShared {
  PassQueries queries;
  alignas(16) float tiles[kListHeadsAtOnce][kTilesPerChunk][kSharedPartialFloats];
};

static_assert((sizeof(DenseShared) > sizeof(ListShared) ? sizeof(DenseShared) : sizeof(ListShared)) ==
                  kAttendSharedBytes,
              "the generator and the template disagree about shared memory");

/// Tokens that a query head attends to as a list.
struct List {
  const int* positions;  ///< or null: all that the row sees
  int tokens;
};

/// Place of an entry of a list. Entries that the row does not see are nowhere.
__device__ __forceinline__ Place place_of_entry(const Places& places, const Row& row, const List& list,
                                                int entry, unsigned& status) {
  if (entry >= list.tokens) return {-1, 0};
  const int position = list.positions == nullptr ? row.first + entry : list.positions[entry];
  if (position >= row.first && position <= row.own) {
    return place_of_rows(places, slot_index(places, position, status), status);
  }
  status |= adamas_abi::kBadPosition;
  return {-1, 0};
}

/// Attention of the heads that share a list over its chunk `index`.
__device__ __forceinline__ void attend_list(const Args& args, const Row& row, int row_index, int kv_head,
                                            int first_head, const List& list, int index) {
  auto& shared = *reinterpret_cast<ListShared*>(dynamic_shared);
  unsigned status = 0, attended = 0;
  const Places places = places_of_sequence(args, row.sequence, status);
#pragma unroll 1
  for (int done = 0; done < kHeadsPerList; done += kListHeadsAtOnce) {
    const int heads = min(kListHeadsAtOnce, kHeadsPerList - done);
    load_pass_queries(args, row_index, first_head, done, warp_index(), kAttendWarps, shared.queries);
    __syncthreads();
#pragma unroll 1
    for (int number = warp_index(); number < kTilesPerChunk; number += kAttendWarps) {
      const Place place =
          place_of_entry(places, row, list, index * kChunk + number * kTile + token_of_lane(), status);
      const unsigned tokens = attend_tile(args, kv_head, shared.queries, place, heads,
                                          shared.tiles[0][number], kTilesPerChunk * kSharedPartialFloats);
      if (done == 0) attended += __popc(tokens);
    }
    __syncthreads();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < heads * kValueDim; i += kThreads) {
      const int head = i / kValueDim, column = i % kValueDim;
      const Merged<1> merged =
          merge_partials<kTilesPerChunk>(shared.tiles[head][0], kSharedPartialFloats, kTilesPerChunk, column);
      float* partial = partial_sums(args, row_index, first_head + done + head, index);
      partial[column] = merged.sums[0];
      if (column == 0) {
        partial[kValueDim] = merged.largest;
        partial[kValueDim + 1] = merged.weights;
      }
    }
    __syncthreads();
  }
  report(args, status);
  if (args.counters != nullptr && attended != 0 && lane_index() == 0) {
    count(args.counters->tokens_attended, attended * kHeadsPerList);
  }
}

/// Grid: x times y = chunk by selection, z = row. Selections change fastest: heads lie side by side in a
/// page, so blocks that run together read together. In a row that attends to all, which has one list for the
/// whole group, the blocks of the group's selections take turns at its chunks.
extern "C" __global__ void __launch_bounds__(kThreads, 1) adamas_attend(const __grid_constant__ Args args) {
  begin_stage();
  const unsigned block = blockIdx.x + gridDim.x * blockIdx.y;
  const int selection = static_cast<int>(block % gridDim.y), part = static_cast<int>(block / gridDim.y);
  const int row_index = static_cast<int>(blockIdx.z);
  const int kv_head = selection / kSelectionsPerKvHead;
  const Row row = load_row(args, row_index);
  if (has_dense_chunks(args, row)) {
    const i64 index = static_cast<i64>(part) * kSelectionsPerKvHead + selection % kSelectionsPerKvHead;
    const int most = dense_chunk_tokens(args, row);
    const i64 begin = index * most;
    if (begin >= row.visible || index >= args.chunks) return;
    const int first = static_cast<int>(begin), tokens = min(most, row.visible - first);
    if (threadIdx.x == 0 && args.counters != nullptr) {
      count(args.counters->tokens_attended, tokens * kGroup);
    }
    attend_chunk(args, row, row_index, kv_head, {static_cast<int>(index), row.first + first, tokens});
  } else if (args.counts != nullptr) {
    List list = {nullptr, row.visible};
    if (!attends_to_all(args, row)) {
      const i64 number = static_cast<i64>(row_index) * args.kv_heads * kSelectionsPerKvHead + selection;
      list = {args.positions + number * kBudget, selected_tokens(args, row_index, selection)};
    }
    if (part * kChunk >= list.tokens) return;
    attend_list(args, row, row_index, kv_head, selection * kHeadsPerList, list, part);
  }
}

}  // namespace adamas_cuda
