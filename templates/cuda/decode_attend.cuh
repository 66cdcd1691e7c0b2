// Attention of the decode kernel: this block's chunks of the lists -> strands -> chunk sums, sent to the
// block that owns a list's first chunk, which adds them up and writes the output.
#pragma once

#include "templates/cuda/decode_select.cuh"

namespace adamas_cuda {

/// Strands of one query head and one of the block's items.
__device__ __forceinline__ float* strands_of(unsigned char* strands, int item, int head) {
  return reinterpret_cast<float*>(strands) + (item * kHeadsPerList + head) * kStrands * kPartialFloats;
}

/// Sums of a chunk of one query head of the group, at the block that owns the list.
__device__ __forceinline__ float* chunk_partial(DecodeShared& shared, int selection, int head, int chunk) {
  return shared.partials[selection * kHeadsPerList + head][chunk];
}

/// Place of an entry of one of the block's items, `tokens` of which exist.
__device__ __forceinline__ Place place_in_item(const Places& places, int item, int entry, int tokens,
                                               unsigned& status) {
  if (entry >= tokens) return {-1, 0};
  return place_of_list_entry(places, list_of_block()[item * kChunk + entry], status);
}

/// Loads quad `number` of the block's items: their strands one after the other, a strand's quads together.
__device__ __forceinline__ void load_number(const Args& args, int kv_head, const Places& places, int first,
                                            int selected, int number, QuadRows& rows, unsigned& status) {
  const int work = number / kQuadsPerStrand, item = work / kStrands;
  const int entry = token_of_quad(work % kStrands, number % kQuadsPerStrand);
  load_quad(args, kv_head, place_in_item(places, item, entry, tokens_of_item(first + item, selected), status),
            rows);
}

/// The quad after `number` that is the same warp's: strands are dealt to the warps in turn.
__device__ __forceinline__ int next_number(int number) {
  return (number + 1) % kQuadsPerStrand != 0 ? number + 1 : number + 1 + (kDecodeWarps - 1) * kQuadsPerStrand;
}

/// All strands of the block's items first .. past - 1. The rows of a warp's next quad are on their way while
/// it adds one.
__device__ __forceinline__ void attend_items(const Args& args, int kv_head, const Places& places, int first,
                                             int past, int selected, const DecodeShared& shared,
                                             unsigned char* strands, unsigned& status) {
  const int quads = (past - first) * kStrands * kQuadsPerStrand;
#pragma unroll 1
  for (int done = 0; done < kHeadsPerList; done += kListHeadsAtOnce) {
    int number = warp_index() * kQuadsPerStrand;
    QuadRows next;
    if (number < quads) load_number(args, kv_head, places, first, selected, number, next, status);
    Strand strand;
    clear(strand);
#pragma unroll 1
    while (number < quads) {
      const QuadRows rows = next;
      const int following = next_number(number);
      if (following < quads) load_number(args, kv_head, places, first, selected, following, next, status);
      const int work = number / kQuadsPerStrand, item = work / kStrands;
      add_quad(args, shared.queries[(first + item) / kChunksPerList][done / kListHeadsAtOnce][0], rows,
               strand);
      if ((number + 1) % kQuadsPerStrand == 0) {
#pragma unroll
        for (int head = 0; head < kListHeadsAtOnce; ++head) {
          if (done + head >= kHeadsPerList) break;
          store_strand(strand, head,
                       strands_of(strands, item, done + head) + work % kStrands * kPartialFloats);
        }
        clear(strand);
      }
      number = following;
    }
  }
}

/// Adds the strands of the block's items and sends the sums to the owners of their lists.
__device__ __forceinline__ void send_chunks(const Cluster& cluster, int first, int past, int selected,
                                            unsigned char* strands, DecodeShared& shared) {
  constexpr int kColumnsOfItem = kHeadsPerList * kValueDim;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < (past - first) * kColumnsOfItem; i += kDecodeThreads) {
    const int item = i / kColumnsOfItem, head = i / kValueDim % kHeadsPerList, column = i % kValueDim;
    if (tokens_of_item(first + item, selected) == 0) continue;
    const Merged merged = merge_partials(strands_of(strands, item, head), kPartialFloats, kStrands, column);
    const int selection = (first + item) / kChunksPerList, chunk = (first + item) % kChunksPerList;
    const unsigned owner = cluster.address_of(block_of_item(cluster, selection * kChunksPerList));
    auto* to = reinterpret_cast<unsigned*>(chunk_partial(shared, selection, head, chunk));
    send(to + column, owner, __float_as_uint(merged.sum), shared.partials_mail);
    if (column == 0) {
      send(to + kValueDim, owner, __float_as_uint(merged.largest), shared.partials_mail);
      send(to + kValueDim + 1, owner, __float_as_uint(merged.weights), shared.partials_mail);
    }
  }
}

/// Writes the outputs of the lists that the block owns.
__device__ __forceinline__ void finish_lists(const Args& args, const Cluster& cluster, int row_index,
                                             int kv_head, int selected, DecodeShared& shared) {
  constexpr int kColumnsOfList = kHeadsPerList * kValueDim;
  const int chunks = (selected + kChunk - 1) / kChunk;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kSelections * kColumnsOfList; i += kDecodeThreads) {
    const int selection = i / kColumnsOfList, head = i / kValueDim % kHeadsPerList, column = i % kValueDim;
    if (block_of_item(cluster, selection * kChunksPerList) != cluster.rank) continue;
    const Merged merged =
        merge_partials(chunk_partial(shared, selection, head, 0), kPartialFloats, chunks, column);
    store_output(args, row_index, kv_head * kGroup + selection * kHeadsPerList + head, column, merged);
  }
}

/// Bytes of chunk sums that a block will be sent.
__device__ __forceinline__ unsigned bytes_of_partials(const Cluster& cluster, int selected) {
  int lists = 0;
#pragma unroll
  for (int selection = 0; selection < kSelections; ++selection) {
    lists += block_of_item(cluster, selection * kChunksPerList) == cluster.rank;
  }
  const int chunks = (selected + kChunk - 1) / kChunk;
  return static_cast<unsigned>(lists * kHeadsPerList * chunks * kPartialFloats) * sizeof(float);
}

}  // namespace adamas_cuda
