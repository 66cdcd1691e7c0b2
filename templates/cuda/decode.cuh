// decode: scan, selection and attention of one row and one K/V head in one launch, by the blocks of a
// cluster. Scores never leave the chip, and blocks talk through each other's shared memory alone. Where the
// grid has more clusters than run at once, rows too short for a whole one are answered by parts: fewer blocks
// share out one row's work, and as many rows again are on their way.
#pragma once

#include "templates/cuda/decode_attend.cuh"
#include "templates/cuda/decode_records.cuh"
#include "templates/cuda/merge_chunks.cuh"

namespace adamas_cuda {

/// Whether warps make the query ready before they ask for codes. Not if all warps have a query head.
constexpr bool kQueryFirst = kGroup < kDecodeWarps;

/// Brings a sequence's table near before its length tells which entries are wanted. A line a thread: the rest
/// of longer tables comes when it is asked for.
__device__ __forceinline__ void prefetch_table(const Args& args, int sequence) {
  if constexpr (!kPaged || kCsr) return;
  constexpr int kEntriesOfLine = 32;
  const i64 entry = static_cast<i64>(threadIdx.x) * kEntriesOfLine;
  if (entry < args.table_stride) prefetch_line(args.table + sequence * args.table_stride + entry);
}

/// Opens the mailboxes for what this block will be sent. By one thread.
__device__ __forceinline__ void open_mailboxes(const Cluster& cluster, const Task& task,
                                               DecodeShared& shared) {
  const unsigned warps = kDecodeWarps * cluster.blocks;
  open_mailbox(shared.maxima_mail, 1);
  open_mailbox(shared.candidates_mail, kSelections * cluster.blocks);
  open_mailbox(shared.ready_mail, cluster.blocks);
  open_mailbox(shared.histograms_mail, 1);
  open_mailbox(shared.list_mail, 1);
  open_mailbox(shared.partials_mail, 1);
  if (task.scans) {
    expect(shared.maxima_mail, kSelections * warps * maxima_words(cluster) * sizeof(unsigned));
  }
  expect(shared.partials_mail, bytes_of_partials(cluster, task.selected));
  publish_mailboxes();
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

__device__ __forceinline__ Shares shares_of_row(const Cluster& cluster, const Row& row,
                                                const Places& places) {
  Shares shares;
  shares.first =
      row.first - static_cast<int>((places.start + static_cast<unsigned>(row.first)) % kSliceGrain);
  const int grains = (row.own + 1 - shares.first + kSliceGrain - 1) / kSliceGrain;
  shares.tokens = grains * kSliceGrain;
  shares.each = cluster.share(grains) * kSliceGrain;
  shares.begin = min(static_cast<int>(cluster.rank) * shares.each, shares.tokens);
  return shares;
}

__device__ __forceinline__ Slice slice_of_block(const Shares& shares) {
  return {shares.first + shares.begin, min(shares.each, shares.tokens - shares.begin), 0};
}

/// The part of `slice` that a warp lists tokens of, in whole pieces.
__device__ __forceinline__ Slice part_of_slice(const Slice& slice, int part) {
  const int pieces = slice.tokens / kPiece, each = (pieces + kListWarps - 1) / kListWarps;
  const int begin = min(part * each, pieces), end = min(begin + each, pieces);
  return {slice.first + begin * kPiece, (end - begin) * kPiece, begin * kPiece};
}

/// Queries as attention wants them, by the warps from `first_warp` on. A barrier must follow.
__device__ __forceinline__ void load_queries(const Args& args, int row_index, int kv_head, int first_warp,
                                             DecodeShared& shared) {
  const int warp = warp_index() - first_warp;
  if (warp < 0) return;
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
#pragma unroll 1
    for (int pass = 0; pass < kListPasses; ++pass) {
      load_pass_queries(args, row_index, kv_head * kGroup + selection * kHeadsPerList,
                        pass * kListHeadsAtOnce, warp, kDecodeWarps - first_warp,
                        shared.queries[selection][pass]);
    }
  }
}

/// Scores the block's slice of the row, and bounds the thresholds of the lists.
__device__ __forceinline__ void scan_row(const Args& args, const Cluster& cluster, const Row& row,
                                         int row_index, int kv_head, const Task& task, const Places& places,
                                         const RawQuery& query, DecodeShared& shared, unsigned& status) {
  const int capacity = cluster.capacity;
  const Shares before = shares_of_row(cluster, row, places);
  if (threadIdx.x == 0) shared.shares = before;
  const Slice slice = slice_of_warp(slice_of_block(before), warp_index());
  CodeStream stream(args, kv_head, places, slice, row.own + 1 - slice.first,
                    rings_of_block(args, cluster) + warp_index() * (args.ring_stages * kPieceBytes));
  stream.fill(status);
  // Warps without a query head to prepare make the queries ready for attention.
  load_queries(args, row_index, kv_head, kQueryFirst ? kGroup : 0, shared);
  if (!kQueryFirst) prepare_columns(args, row_index, kv_head, query, shared);
  __syncthreads();
  cluster_wait();
  const Row kept = shared.kept.row;  // until here it took no registers
  scan_slice(cluster, kept, slice, shared, scores_of_block(args), capacity, stream, status);
  if (warp_index() < kSelections) {
    wait_for_mail(shared.maxima_mail, 0);
#pragma unroll 1
    for (int selection = warp_index(); selection < kSelections; selection += kDecodeWarps) {
      bound_threshold(cluster, selection, task.selected, shared);
    }
  }
  __syncthreads();
}

/// Lists what may be selected of the block's slice, and sends it to those who select.
__device__ __forceinline__ void list_and_send(const Args& args, const Cluster& cluster, const Shares& shares,
                                              DecodeShared& shared, const unsigned char* scores) {
  const int capacity = cluster.capacity;
  const int part = warp_index() % kListWarps;
  const Slice part_slice = part_of_slice(slice_of_block(shares), part);
#pragma unroll 1
  for (int selection = warp_index() / kListWarps; selection < kSelections; selection += kListsAtOnce) {
    const unsigned char* const list = scores + selection * score_bytes(capacity);
    const unsigned listed =
        list_candidates(shares, part_slice, list, piece_maxima(list, capacity),
                        shared.search[selection].lowest, candidates_of(args, cluster, selection, part));
    if (lane_index() == 0) shared.candidate_counts[selection][part] = listed;
  }
  __syncthreads();
#pragma unroll 1
  for (int selection = warp_index() / kListWarps; selection < kSelections; selection += kListsAtOnce) {
    send_candidates(args, cluster, shares, selection, part, candidates_of(args, cluster, selection, part),
                    shared);
  }
}

/// Chooses from the candidates of all blocks, and stores the entries of this block's items. Lists that have
/// too many candidates for that are left.
__device__ __forceinline__ void choose_tokens(const Args& args, const Cluster& cluster, i64 first_of_row,
                                              const Task& task, const Places& places, const Shares& shares,
                                              int first, int past, DecodeShared& shared, unsigned& status) {
  // The lists that the block attends to.
  const int begin = first / kChunksPerList, end = past == first ? begin : (past - 1) / kChunksPerList + 1;
  wait_for_mail(shared.candidates_mail, 0);
#pragma unroll 1
  for (int selection = warp_index(); selection < kSelections; selection += kDecodeWarps) {
    const unsigned total = count_candidates(selection, shared).total;
    if (lane_index() == 0) shared.totals[selection] = total;
  }
  // One warp searches a list, and those that have none look up what the entries are.
  const int searching = min(end - begin, kDecodeWarps), busy = searching == kDecodeWarps ? 0 : searching;
#pragma unroll 1
  for (int selection = begin; selection < end; ++selection) {
    const Counts counts = count_candidates(selection, shared);
    if (counts.total == kTooMany) continue;
    if (warp_index() == (selection - begin) % kDecodeWarps) {
      const Threshold threshold =
          find_threshold(args, cluster, shares, selection, counts, task.selected, shared);
      if (lane_index() == 0) shared.thresholds[selection] = threshold;
    }
    if (warp_index() >= busy) {
      look_up_entries(args, cluster, places, shares, selection, counts, warp_index() - busy,
                      kDecodeWarps - busy, shared, status);
    }
  }
  __syncthreads();
  constexpr int kGroups = kMostCandidates / kWarp;
#pragma unroll 1
  for (int i = warp_index(); i < (end - begin) * kGroups; i += kDecodeWarps) {
    const int selection = begin + i / max(kGroups, 1), group = i % max(kGroups, 1);
    const auto total = static_cast<int>(shared.totals[selection]);
    if (shared.totals[selection] == kTooMany || group * kWarp >= total) continue;
    const bool writes = args.positions != nullptr && cluster.rank == readers_of(cluster, selection).first;
    int* const out = writes ? args.positions + (first_of_row + selection) * kBudget : nullptr;
    store_entries(args, places, shares, selection, total, group, first, past, shared, out, status);
  }
}

/// Finds the row's lists, once scores are made, and stores the entries of this block's items.
__device__ __forceinline__ void select_tokens(const Args& args, const Kept& kept, int row_index,
                                              const Task& task, DecodeShared& shared, unsigned& status) {
  const Cluster& cluster = kept.cluster;
  const Places& places = kept.places;
  const Shares shares = shared.shares;
  unsigned char* const scores = scores_of_block(args);
  const int first = first_item_of_block(cluster, cluster.rank);
  const int past = first_item_of_block(cluster, cluster.rank + 1);
  const i64 first_of_row = (static_cast<i64>(row_index) * args.kv_heads + kept.kv_head) * kSelections;
  list_and_send(args, cluster, shares, shared, scores);
  choose_tokens(args, cluster, first_of_row, task, places, shares, first, past, shared, status);
  bool searches = false;
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
    searches |= shared.totals[selection] == kTooMany;
  }
  if (searches) {
    search_lists(args, cluster, places, shares,
                 part_of_slice(slice_of_block(shares), warp_index() % kListWarps), first_of_row, first, past,
                 task.selected, shared, scores, status);
  }
}

/// Fills this block's items where the lists are all that the row sees.
__device__ __forceinline__ void list_all(const Kept& kept, int selected, unsigned& status) {
  const int first = first_item_of_block(kept.cluster, kept.cluster.rank);
  const int past = first_item_of_block(kept.cluster, kept.cluster.rank + 1);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < (past - first) * kChunk; i += kDecodeThreads) {
    const int number = (first + i / kChunk) % kChunksPerList * kChunk + i % kChunk;
    if (number < selected) list_of_block()[i] = list_entry(kept.places, kept.row.first + number, status);
  }
}

/// Output of a row that attends to more than a list holds: attend has summed its chunks. The cluster's blocks
/// share out the query heads.
__device__ __forceinline__ void merge_short_row(const Args& args, const Cluster& cluster, const Row& row,
                                                int row_index, int kv_head) {
  static_assert(sizeof(MergeShared) <= sizeof(DecodeShared));
  auto& shared = *reinterpret_cast<MergeShared*>(dynamic_shared);
  const int chunks = chunks_of_all(args, row, args.short_chunks);
  __syncthreads();  // shared memory has been cleared
#pragma unroll 1
  for (int head = static_cast<int>(cluster.rank); head < kGroup; head += static_cast<int>(cluster.blocks)) {
    const int query_head = kv_head * kGroup + head;
    merge_chunks<kDecodeThreads>(args, row_index, query_head,
                                 partials_of_head(args, args.short_chunks, row_index, query_head), chunks,
                                 shared);
  }
  if (threadIdx.x != 0 || cluster.rank != 0 || args.counters == nullptr) return;
  count_row(args, row, kGroup);
  count(args.counters->dense_short, kGroup);
}

/// Grid: x = blocks of a cluster, y = K/V head, z = row. Where parts of a cluster answer a row, as many
/// clusters have nothing to do: the first of each few answers their heads.
extern "C" __global__ void __launch_bounds__(kDecodeThreads, kDecodeBlocksPerProcessor)
    adamas_decode(const __grid_constant__ Args args) {
  auto& shared = *reinterpret_cast<DecodeShared*>(dynamic_shared);
  copy_arguments(args, shared);
  const Cluster whole = this_cluster(args);
  const int row_index = static_cast<int>(blockIdx.z);
  int kv_head = static_cast<int>(blockIdx.y);
  prefetch_table(args, row_index / kQueryRows);
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kSelections * kExcesses; i += kDecodeThreads) {
    shared.excesses[i / kExcesses][i % kExcesses] = 0;
    if (i % kExcesses < kMostBlocks) shared.block_counts[i / kExcesses][i % kExcesses] = 0;
  }
  wait_for_previous_kernel();
  // All wait for the query's columns: the query is loaded first, and made ready before the warp asks for
  // codes.
  RawQuery query;
  const bool whole_only = static_cast<unsigned>(args.smallest_part) == whole.blocks;
  if (whole_only && warp_index() < kGroup)
    load_query(args, row_index, kv_head * kGroup + warp_index(), query);
  const Row row = load_row(args, row_index);
  if (has_dense_chunks(args, row)) {
    merge_short_row(args, whole, row, row_index, kv_head);
    return;
  }
  Cluster part = whole;
  if (!whole_only) {
    part = part_for(args, whole, row.visible);
    const int parts = static_cast<int>(whole.blocks / part.blocks);
    if (kv_head % parts != 0) return;
    kv_head += static_cast<int>(whole.rank / part.blocks);
    if (kv_head >= args.kv_heads) return;
    if (warp_index() < kGroup) load_query(args, row_index, kv_head * kGroup + warp_index(), query);
  }
  const Task task = task_of(args, row, row_index);
  if (kQueryFirst && task.scans) prepare_columns(args, row_index, kv_head, query, shared);
  unsigned status = 0;
  const Places places = places_of_sequence(args, row.sequence, status);
  if (threadIdx.x == kDecodeThreads / 2) shared.kept = {places, row, part, kv_head};
  if (threadIdx.x == kDecodeThreads - 1) open_mailboxes(part, task, shared);
  cluster_arrive();
  Kept kept;
  if (task.scans) {
    scan_row(args, part, row, row_index, kv_head, task, places, query, shared, status);
    kept = shared.kept;
    select_tokens(args, kept, row_index, task, shared, status);
  } else {
    load_queries(args, row_index, kv_head, 0, shared);
    cluster_wait();
    kept = shared.kept;
    list_all(kept, task.selected, status);
  }
  __syncthreads();
  const Cluster& cluster = kept.cluster;
  const int first = first_item_of_block(cluster, cluster.rank);
  const int past = first_item_of_block(cluster, cluster.rank + 1);
  if (warp_index() == kDecodeWarps - 1 && cluster.rank == 0 && wants_records(args)) {
    status |= leave_records(shared, row_index);
  }
  // Not earlier: blocks that wait for this kernel's end slow its selection down.
  let_next_kernel_start();
  unsigned char* const scratch = scores_of_block(args);
  attend_items(args, kept.kv_head, kept.places, first, past, task.selected, shared, scratch, status);
  __syncthreads();
  send_chunks(cluster, first, past, task.selected, scratch, shared);
  wait_for_mail(shared.partials_mail, 0);
  finish_lists(args, cluster, row_index, kept.kv_head, task.selected, shared);
  report(args, status);
}

}  // namespace adamas_cuda
