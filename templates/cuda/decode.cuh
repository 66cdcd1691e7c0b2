// decode: scan, selection and attention of one row and one K/V head in one launch, by the blocks of a
// cluster. Scores never leave the chip, and blocks talk through each other's shared memory alone.
#pragma once

#include "templates/cuda/decode_attend.cuh"

namespace adamas_cuda {

/// What a row asks of its cluster.
struct Task {
  int selected;  ///< tokens in each list
  bool scans;    ///< whether they must be found; otherwise they are all that the row sees
};

__device__ __forceinline__ Task task_of(const Args& args, const Row& row, int row_index) {
  if (attends_to_all(args, row)) return {row.visible, false};
  const int budget = row_budget(args, row_index);
  return {min(budget, row.visible), budget < row.visible && budget > 0};
}

/// Opens the mailboxes for what this block will be sent. By one thread.
__device__ __forceinline__ void open_mailboxes(const Cluster& cluster, const Task& task, int first, int past,
                                               DecodeShared& shared) {
  int listed = 0;
#pragma unroll 1
  for (int item = first; item < past; ++item) {
    listed += tokens_of_item(item, task.selected);
  }
  const unsigned warps = kDecodeWarps * cluster.blocks;
  open_mailbox(shared.maxima_mail, kSelections * warps * maxima_words(cluster) * sizeof(unsigned));
  open_mailbox(shared.inbox_mail, kSelections * cluster.blocks * kBins * 2);
  open_mailbox(shared.list_mail, listed * sizeof(unsigned));
  open_mailbox(shared.partials_mail, bytes_of_partials(cluster, task.selected));
}

/// The part of `slice` that a warp scans, in whole pieces. Warps that bound a threshold afterwards, while the
/// others still scan, get three for every four.
__device__ __forceinline__ Slice slice_of_warp(const Slice& slice, int warp) {
  constexpr int kBounding = kSelections < kDecodeWarps ? kSelections : kDecodeWarps;
  constexpr int kShares = 4 * kDecodeWarps - kBounding;
  const int pieces = (slice.tokens + kPiece - 1) / kPiece;
  const int begin = pieces * (4 * warp - min(warp, kBounding)) / kShares;
  const int end = pieces * (4 * (warp + 1) - min(warp + 1, kBounding)) / kShares;
  return {slice.first + begin * kPiece, (end - begin) * kPiece, begin * kPiece};
}

/// The part of a row's positions that a block scans. It begins where the slot index is a multiple of the
/// grain, which may be before the first position that the row sees.
__device__ __forceinline__ Slice slice_of_block(const Cluster& cluster, const Row& row,
                                                const Places& places) {
  const int base =
      row.first - static_cast<int>((places.start + static_cast<unsigned>(row.first)) % kSliceGrain);
  const int grains = (row.own + 1 - base + kSliceGrain - 1) / kSliceGrain;
  const int each = cluster.share(grains);
  const int begin = min(static_cast<int>(cluster.rank) * each, grains), end = min(begin + each, grains);
  return {base + begin * kSliceGrain, (end - begin) * kSliceGrain, 0};
}

/// The part of `slice` that a warp lists tokens of.
__device__ __forceinline__ Slice part_of_slice(const Slice& slice, int part) {
  const int vectors = slice.tokens / kTokensPerLane, each = (vectors + kListWarps - 1) / kListWarps;
  const int begin = min(part * each, vectors), end = min(begin + each, vectors);
  return {slice.first + begin * kTokensPerLane, (end - begin) * kTokensPerLane, begin * kTokensPerLane};
}

/// Queries as attention wants them, by the warps from `first_warp` on. A barrier must follow.
__device__ __forceinline__ void load_queries(const Args& args, int row_index, int kv_head, int first_warp,
                                             DecodeShared& shared) {
  const int threads = (kDecodeWarps - first_warp) * kWarp;
  const int thread = static_cast<int>(threadIdx.x) - first_warp * kWarp;
  if (thread < 0) return;
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
#pragma unroll 1
    for (int pass = 0; pass < kListPasses; ++pass) {
      load_pass_queries(args, row_index, kv_head * kGroup + selection * kHeadsPerList,
                        pass * kListHeadsAtOnce, thread, threads, shared.queries[selection][pass]);
    }
  }
}

/// Finds the row's lists and sends their entries to the blocks that attend to them.
__device__ __forceinline__ void select_tokens(const Args& args, const Cluster& cluster, const Row& row,
                                              int row_index, int kv_head, const Task& task,
                                              const Places& places, DecodeShared& shared,
                                              unsigned char* scores, unsigned& status) {
  const int stride = score_bytes(slice_capacity(args, cluster));
  const Slice block_slice = slice_of_block(cluster, row, places);
  const Slice slice = slice_of_warp(block_slice, warp_index());

  // The query first, or it would wait behind the codes; codes before it is made ready.
  float query[kWords];
  if (warp_index() < kGroup) load_query(args, row_index, kv_head * kGroup + warp_index(), query);
  CodeStream stream(args, kv_head, places, slice, row.own + 1 - slice.first,
                    rings_of_block(args, cluster) + warp_index() * (args.ring_stages * kPieceBytes));
#pragma unroll 1
  for (int stage = 1; stage < args.ring_stages; ++stage) {
    stream.begin_piece(status);
  }
  // Warps without a query head to prepare make the queries ready for attention.
  load_queries(args, row_index, kv_head, kGroup < kDecodeWarps ? kGroup : 0, shared);
  prepare_columns(args, row_index, kv_head, query, shared);
  __syncthreads();
  cluster_wait();
  scan_slice(cluster, row, slice, shared, scores, stride, stream, status);
  if (warp_index() < kSelections) {
    wait_for_mail(shared.maxima_mail, 0);
#pragma unroll 1
    for (int selection = warp_index(); selection < kSelections; selection += kDecodeWarps) {
      bound_threshold(cluster, selection, task.selected, shared);
    }
  }
  let_next_kernel_start();
  __syncthreads();

  const int part = warp_index() % kListWarps, first_list = warp_index() / kListWarps;
  const Slice part_slice = part_of_slice(block_slice, part);
  unsigned delivery = 0;
#pragma unroll 1
  for (bool open = true; open; ++delivery) {
    if (delivery > 0) {  // once more, where scores spread wider than a histogram
#pragma unroll 1
      for (int i = static_cast<int>(threadIdx.x); i < kSelections * kBins; i += kDecodeThreads) {
        if (is_open(shared.search[i / kBins])) shared.bins[i / kBins][i % kBins] = 0;
      }
      if (threadIdx.x == 0) {
        expect_again(shared.inbox_mail, kSelections * cluster.blocks * kBins * 2);
      }
      cluster_arrive();  // all blocks have read the last delivery
      cluster_wait();
    }
#pragma unroll 1
    for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
      const Search search = shared.search[selection];
      unsigned* const bins = shared.bins[selection];
      unsigned short* const candidates = candidates_of(args, cluster, selection, part);
      unsigned& listed = shared.candidate_counts[selection][part];
      if (delivery == 0) {
        const unsigned found =
            list_candidates(part_slice, scores + selection * stride, search, bins, candidates);
        if (lane_index() == 0) listed = found;
      } else if (is_open(search)) {
        count_scores(part_slice, scores + selection * stride, search, bins, candidates, listed);
      }
    }
    __syncthreads();
    send_bins(cluster, shared);
    wait_for_mail(shared.inbox_mail, delivery);
#pragma unroll 1
    for (int selection = warp_index(); selection < kSelections; selection += kDecodeWarps) {
      if (delivery == 0 || is_open(shared.search[selection])) {
        narrow_search(cluster, selection, task.selected, shared);
      }
    }
    __syncthreads();
    open = false;
#pragma unroll 1
    for (int selection = 0; selection < kSelections; ++selection) {
      open |= is_open(shared.search[selection]);
    }
  }

#pragma unroll 1
  for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
    const unsigned counts =
        count_slice(part_slice, scores + selection * stride, shared.search[selection].lowest,
                    candidates_of(args, cluster, selection, part), shared.candidate_counts[selection][part]);
    if (lane_index() == 0) shared.list_counts[selection][part] = counts;
  }
  __syncthreads();
#pragma unroll 1
  for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
    const i64 list = (static_cast<i64>(row_index) * args.kv_heads + kv_head) * kSelections + selection;
    int* out = args.positions == nullptr ? nullptr : args.positions + list * kBudget;
    send_selected(args, cluster, places, part_slice, part, {selection, out}, scores + selection * stride,
                  shared, status);
  }
  wait_for_mail(shared.list_mail, 0);
}

/// Fills this block's items where the lists are all that the row sees.
__device__ __forceinline__ void list_all(const Row& row, const Places& places, int first, int past,
                                         int selected, unsigned& status) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < (past - first) * kChunk; i += kDecodeThreads) {
    const int number = (first + i / kChunk) % kChunksPerList * kChunk + i % kChunk;
    if (number < selected) list_of_block()[i] = list_entry(places, row.first + number, status);
  }
}

/// What the caller's arrays still lack: counts, the places behind a list, and lists that were not searched.
__device__ __forceinline__ void complete_selection(const Args& args, const Row& row, int row_index,
                                                   int kv_head, const Task& task, const Places& places,
                                                   unsigned& status) {
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
    const i64 list = (static_cast<i64>(row_index) * args.kv_heads + kv_head) * kSelections + selection;
    // A list is of the budget's tokens, also where the row attends to more.
    const int listed = min(row_budget(args, row_index), row.visible);
    if (args.counts != nullptr && threadIdx.x == 0) args.counts[list] = listed;
    if (args.positions == nullptr) continue;
    int* out = args.positions + list * kBudget;
    const int begin = task.scans ? listed : 0;
#pragma unroll 1
    for (int i = begin + static_cast<int>(threadIdx.x); i < kBudget; i += kDecodeThreads) {
      const int position = i < listed ? row.first + i : -1;
      const bool as_slot = args.write_slots != 0 && position >= 0;
      out[i] = as_slot ? slot_of(args, place_of_position(places, position, status)) : position;
    }
  }
}

/// Grid: x = blocks of a cluster, y = K/V head, z = row.
extern "C" __global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocksPerProcessor)
    adamas_decode(const __grid_constant__ Args args) {
  auto& shared = *reinterpret_cast<DecodeShared*>(dynamic_shared);
  const Cluster cluster = this_cluster();
  const int kv_head = static_cast<int>(blockIdx.y), row_index = static_cast<int>(blockIdx.z);
  const int first = first_item_of_block(cluster, cluster.rank);
  const int past = first_item_of_block(cluster, cluster.rank + 1);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kSelections * kBins; i += kDecodeThreads) {
    shared.bins[i / kBins][i % kBins] = 0;
  }

  wait_for_previous_kernel();
  const Row row = load_row(args, row_index);
  const Task task = task_of(args, row, row_index);
  unsigned status = 0;
  const Places places = places_of_sequence(args, row.sequence, status);
  if (threadIdx.x == kDecodeThreads - 1) open_mailboxes(cluster, task, first, past, shared);
  cluster_arrive_early();
  unsigned char* const scratch = scores_of_block(cluster);
  if (task.scans) {
    select_tokens(args, cluster, row, row_index, kv_head, task, places, shared, scratch, status);
  } else {
    load_queries(args, row_index, kv_head, 0, shared);
    list_all(row, places, first, past, task.selected, status);
    cluster_wait();
    let_next_kernel_start();
  }
  __syncthreads();
  attend_items(args, kv_head, places, first, past, task.selected, shared, scratch, status);
  __syncthreads();
  send_chunks(cluster, first, past, task.selected, scratch, shared);
  wait_for_mail(shared.partials_mail, 0);
  finish_lists(args, cluster, row_index, kv_head, task.selected, shared);

  if (cluster.rank == 0) complete_selection(args, row, row_index, kv_head, task, places, status);
  report(args, status);
  if (threadIdx.x != 0 || cluster.rank != 0 || args.counters == nullptr) return;
  count_row(args, row, kGroup);
  if (row.visible == 0) return;
  count(args.counters->tokens_attended, task.selected * kGroup);
  if (attends_to_all(args, row)) {
    count(args.counters->dense_short, kGroup);
  } else {
    count(args.counters->tokens_scanned, row.visible);
  }
}

}  // namespace adamas_cuda
