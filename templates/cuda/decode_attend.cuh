// Attention of the decode kernel: this block's chunks of the lists -> sums of tiles -> chunk sums, sent to
// the block that owns a list's first chunk, which adds them up and writes the output.
#pragma once

#include "templates/cuda/decode_select.cuh"

namespace adamas_cuda {

/// Sums of the tiles of one query head and one of the block's items.
__device__ __forceinline__ float* tiles_of(unsigned char* tiles, int item, int head) {
  return reinterpret_cast<float*>(tiles) +
         (item * kHeadsPerList + head) * kTilesPerChunk * kSharedPartialFloats;
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

/// All tiles of the block's items first .. past - 1.
__device__ __forceinline__ void attend_items(const Args& args, int kv_head, const Places& places, int first,
                                             int past, int selected, const DecodeShared& shared,
                                             unsigned char* tiles, unsigned& status) {
#pragma unroll 1
  for (int done = 0; done < kHeadsPerList; done += kListHeadsAtOnce) {
#pragma unroll 1
    for (int number = warp_index(); number < (past - first) * kTilesPerChunk; number += kDecodeWarps) {
      const int item = number / kTilesPerChunk, tile = number % kTilesPerChunk;
      const int heads = min(kListHeadsAtOnce, kHeadsPerList - done);
      float* const partials = tiles_of(tiles, item, done) + tile * kSharedPartialFloats;
      const Place place = place_in_item(places, item, tile * kTile + token_of_lane(),
                                        tokens_of_item(first + item, selected), status);
      attend_tile(args, kv_head, shared.queries[(first + item) / kChunksPerList][done / kListHeadsAtOnce],
                  place, heads, partials, kTilesPerChunk * kSharedPartialFloats);
    }
  }
}

/// Adds the tiles of the block's items and sends the sums to the owners of their lists, four columns a
/// thread.
__device__ __forceinline__ void send_chunks(const Cluster& cluster, int first, int past, int selected,
                                            unsigned char* tiles, DecodeShared& shared) {
  constexpr int kVectors = kValueDim / 4, kVectorsOfItem = kHeadsPerList * kVectors;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < (past - first) * kVectorsOfItem; i += kDecodeThreads) {
    const int item = i / kVectorsOfItem, head = i / kVectors % kHeadsPerList, vector = i % kVectors;
    if (tokens_of_item(first + item, selected) == 0) continue;
    const Merged<4> merged = merge_partials<kTilesPerChunk, 4>(
        tiles_of(tiles, item, head), kSharedPartialFloats, kTilesPerChunk, vector * 4);
    const int selection = (first + item) / kChunksPerList, chunk = (first + item) % kChunksPerList;
    const unsigned owner = cluster.address_of(block_of_item(cluster, selection * kChunksPerList));
    auto* const to = reinterpret_cast<uint4*>(chunk_partial(shared, selection, head, chunk));
    send(to + vector, owner,
         {__float_as_uint(merged.sums[0]), __float_as_uint(merged.sums[1]), __float_as_uint(merged.sums[2]),
          __float_as_uint(merged.sums[3])},
         shared.partials_mail);
    if (vector != 0) continue;
    send(to + kVectors, owner, {__float_as_uint(merged.largest), __float_as_uint(merged.weights), 0, 0},
         shared.partials_mail);
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
    const Merged<1> merged = merge_partials<kChunksPerList>(chunk_partial(shared, selection, head, 0),
                                                            kSharedPartialFloats, chunks, column);
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
  return static_cast<unsigned>(lists * kHeadsPerList * chunks * kSharedPartialFloats) * sizeof(float);
}

}  // namespace adamas_cuda
