// Selection of the decode kernel: scores -> lists of slots in the blocks that attend to them. Every block of
// the cluster counts its scores in a histogram, all exchange theirs, and each finds out what is the score of
// the budget's last token, how many equal ones are its own to select, and where its tokens stand in the list.
// Integers all along, so the answer does not depend on who comes first. The histogram begins at a lower bound,
// the budget's largest of many maxima, so that few scores need to be counted.
#pragma once

#include "templates/cuda/decode_scan.cuh"

namespace adamas_cuda {

/// How many of a lane's maxima reach a score; summed over the warp.
__device__ __forceinline__ int count_maxima(const Maximum (&maxima)[kMaximaWords / kWarp], unsigned score) {
  unsigned counts = 0;
#pragma unroll
  for (const Maximum maximum : maxima) {
    if constexpr (kNarrowScores) {  // both halves at once: bit 15 survives where the half is not below
      counts += ((maximum | 0x80008000u) - score * 0x10001u & 0x80008000u) >> 15;
    } else {
      counts += maximum >= score;
    }
  }
  return sum_over_warp(static_cast<int>(kNarrowScores ? (counts & 0xffffu) + (counts >> 16) : counts));
}

/// Begins the search for one selection's threshold. By one warp.
__device__ __forceinline__ void bound_threshold(const Cluster& cluster, int selection, int wanted,
                                                DecodeShared& shared) {
  const int filled = maxima_words(cluster) * kDecodeWarps << cluster.log2_blocks;
  Maximum maxima[kMaximaWords / kWarp];
  Maximum largest = 0;
#pragma unroll
  for (int i = 0; i < kMaximaWords / kWarp; ++i) {
    const int word = i * kWarp + lane_index();
    maxima[i] = word < filled ? shared.maxima[selection][word] : 0;
    largest = larger(largest, maxima[i]);
  }
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    largest = larger(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  }
  const unsigned most = kNarrowScores ? max(largest & 0xffffu, largest >> 16) : largest;
  // At least `wanted` maxima, hence tokens, reach `reached`; fewer reach `missed`.
  unsigned reached = 0, missed = most + 1;
  if (count_maxima(maxima, 1) >= wanted) {
    reached = 1;
#pragma unroll 1
    while (missed - reached > 4) {  // close enough
      const unsigned middle = (reached + missed) / 2;
      if (count_maxima(maxima, middle) >= wanted) {
        reached = middle;
      } else {
        missed = middle;
      }
    }
  }
  if (lane_index() == 0) {
    const unsigned lowest = max(reached, 1u);  // 0 is no token
    const int bits = 32 - __clz(static_cast<int>(max(most, lowest) - lowest));
    shared.search[selection] = {lowest, kForcedScore + 1, static_cast<unsigned>(max(bits - 8, 0)), 0, 0, 0, 0};
  }
}

/// Eight neighbouring scores.
__device__ __forceinline__ void load_scores(const unsigned char* scores, int token,
                                            unsigned (&out)[kTokensPerLane]) {
  if constexpr (kNarrowScores) {
    const uint4 words = *reinterpret_cast<const uint4*>(scores + token * 2);
    const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < kTokensPerLane; ++i) {
      out[i] = i % 2 == 0 ? pairs[i / 2] & 0xffffu : pairs[i / 2] >> 16;
    }
  } else {
    const uint4 low = *reinterpret_cast<const uint4*>(scores + token * 4);
    const uint4 high = *reinterpret_cast<const uint4*>(scores + token * 4 + 16);
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  }
}

/// Whether a search goes on after a histogram.
__device__ __forceinline__ bool is_open(const Search& search) { return search.top - search.lowest > 1; }

/// Counts the scores of a warp's slice that are in the search's range.
__device__ __forceinline__ void count_scores(const Slice& slice, const unsigned char* scores,
                                             const Search& search, unsigned* bins) {
#pragma unroll 1
  for (int token = lane_index() * kTokensPerLane; token < slice.tokens; token += kWarp * kTokensPerLane) {
    unsigned score[kTokensPerLane];
    load_scores(scores, slice.offset + token, score);
#pragma unroll
    for (const unsigned s : score) {
      if (s >= search.lowest && s < search.top) {
        atomicAdd(&bins[min((s - search.lowest) >> search.shift, kBins - 1u)], 1u);
      }
    }
  }
}

/// Sends this block's histograms to every block. Counts beyond the budget are cut off: they say enough.
__device__ __forceinline__ void send_bins(const Cluster& cluster, DecodeShared& shared) {
  constexpr int kVectors = kBins / 8;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kSelections * kVectors; i += kDecodeThreads) {
    const int selection = i / kVectors, first = i % kVectors * 8;
    unsigned pairs[4];
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const uint2 two = *reinterpret_cast<const uint2*>(&shared.bins[selection][first + 2 * pair]);
      pairs[pair] = min(two.x, static_cast<unsigned>(kBudget)) | min(two.y, static_cast<unsigned>(kBudget)) << 16;
    }
    auto* to = reinterpret_cast<uint4*>(&shared.inbox[selection][cluster.rank][first]);
#pragma unroll 1
    for (unsigned block = 0; block < cluster.blocks; ++block) {
      send(to, block, {pairs[0], pairs[1], pairs[2], pairs[3]}, shared.inbox_mail);
    }
  }
}

/// Sum over a lane's eight bins of a histogram, from bin `from` on.
__device__ __forceinline__ unsigned sum_bins(const unsigned short* bins, int from) {
  const uint4 words = *reinterpret_cast<const uint4*>(bins + lane_index() * 8);
  const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
  unsigned sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const unsigned count = i % 2 == 0 ? pairs[i / 2] & 0xffffu : pairs[i / 2] >> 16;
    sum += lane_index() * 8 + i >= from ? count : 0u;
  }
  return sum;
}

/// Narrows one selection's search to the bin that holds the budget's last token. By one warp.
__device__ __forceinline__ void narrow_search(const Cluster& cluster, int selection, unsigned wanted,
                                              DecodeShared& shared) {
  Search search = shared.search[selection];
  const auto& inbox = shared.inbox[selection];
  // Bins of all blocks, 8 a lane, and the sum of each lane and those after it.
  unsigned totals[8] = {};
#pragma unroll 1
  for (unsigned block = 0; block < cluster.blocks; ++block) {
    const uint4 words = *reinterpret_cast<const uint4*>(&inbox[block][lane_index() * 8]);
    const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      totals[i] += i % 2 == 0 ? pairs[i / 2] & 0xffffu : pairs[i / 2] >> 16;
    }
  }
  unsigned lane_total = 0;
#pragma unroll
  for (const unsigned total : totals) {
    lane_total += total;
  }
  unsigned from_here = lane_total;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const unsigned later = __shfl_down_sync(kAllLanes, from_here, distance);
    if (lane_index() + distance < kWarp) from_here += later;
  }
  const unsigned needed = wanted - search.above;
  // The last lane from which on there are enough; it has the bin.
  const unsigned enough = __ballot_sync(kAllLanes, from_here >= needed);
  const int owner = max(31 - __clz(static_cast<int>(enough)), 0);
  int bin = 0;
  unsigned better = from_here - lane_total;  // tokens in better bins
  bool found = false;
#pragma unroll
  for (int i = 7; i >= 0; --i) {
    if (found) continue;
    bin = lane_index() * 8 + i;
    found = better + totals[i] >= needed;
    if (!found) better += totals[i];
  }
  bin = __shfl_sync(kAllLanes, bin, owner);
  better = __shfl_sync(kAllLanes, better, owner);

  unsigned before = 0;
#pragma unroll 1
  for (unsigned block = 0; block < cluster.rank; ++block) {
    before += sum_bins(inbox[block], bin + 1);
  }
  search.above += better;
  search.above_before += static_cast<unsigned>(sum_over_warp(static_cast<int>(before)));
  if (bin < kBins - 1) search.top = search.lowest + (static_cast<unsigned>(bin + 1) << search.shift);
  search.lowest += static_cast<unsigned>(bin) << search.shift;
  const int bits = 32 - __clz(static_cast<int>(search.top - search.lowest - 1));
  search.shift = static_cast<unsigned>(max(bits - 8, 0));
  if (!is_open(search)) {
    // Of equal tokens the later ones are selected: the last block's come first.
    unsigned left = wanted - search.above, before_taken = 0, taken = 0;
#pragma unroll 1
    for (int block = static_cast<int>(cluster.blocks) - 1; block >= 0; --block) {
      const unsigned here = min(left, static_cast<unsigned>(inbox[block][bin]));
      left -= here;
      if (block == static_cast<int>(cluster.rank)) taken = here;
      if (block < static_cast<int>(cluster.rank)) before_taken += here;
    }
    search.skipped = shared.bins[selection][bin] - taken;
    search.first = search.above_before + before_taken;
  }
  __syncwarp();
  if (lane_index() == 0) shared.search[selection] = search;
}

/// Tokens of a lane's vector that are above the threshold, and in the upper half those equal to it.
__device__ __forceinline__ unsigned count_selected(const unsigned (&score)[kTokensPerLane], unsigned threshold) {
  unsigned counts = 0;
#pragma unroll
  for (const unsigned s : score) {
    counts += s > threshold ? 1u : s == threshold ? 1u << 16 : 0u;
  }
  return counts;
}

/// The same for a warp's slice.
__device__ __forceinline__ unsigned count_slice(const Slice& slice, const unsigned char* scores,
                                                unsigned threshold) {
  unsigned counts = 0;
#pragma unroll 1
  for (int token = lane_index() * kTokensPerLane; token < slice.tokens; token += kWarp * kTokensPerLane) {
    unsigned score[kTokensPerLane];
    load_scores(scores, slice.offset + token, score);
    counts += count_selected(score, threshold);
  }
  return static_cast<unsigned>(sum_over_warp(static_cast<int>(counts)));
}

/// What a list says of a token: its slot, or in a contiguous cache its token index.
__device__ __forceinline__ unsigned list_entry(const Places& places, int position, unsigned& status) {
  const Place place = place_of_position(places, position, status);
  if constexpr (!kPaged) return static_cast<unsigned>(place.token);
  return static_cast<unsigned>(place.page) * kPageSize + static_cast<unsigned>(place.token);
}

__device__ __forceinline__ Place place_of_list_entry(const Places& places, unsigned entry) {
  if constexpr (!kPaged) return {places.page, static_cast<int>(entry)};
  return {static_cast<int>(entry / kPageSize), static_cast<int>(entry % kPageSize)};
}

/// Sends the selected tokens of a warp's slice to the blocks that attend to them, and writes their positions
/// for the caller.
/// @param out  the caller's positions of this selection, or null
__device__ __forceinline__ void send_selected(const Args& args, const Cluster& cluster, const Places& places,
                                              const Slice& slice, int selection, const unsigned char* scores,
                                              DecodeShared& shared, int* out, unsigned& status) {
  const Search& search = shared.search[selection];
  const unsigned threshold = search.lowest, skipped = search.skipped, first = search.first;
  unsigned before = 0;  // above and equal, in this block's earlier tokens
#pragma unroll 1
  for (int warp = 0; warp < warp_index(); ++warp) {
    before += shared.warp_counts[selection][warp];
  }
#pragma unroll 1
  for (int start = 0; start < slice.tokens; start += kWarp * kTokensPerLane) {
    const int token = start + lane_index() * kTokensPerLane;
    unsigned score[kTokensPerLane] = {};
    if (token < slice.tokens) load_scores(scores, slice.offset + token, score);
    const unsigned mine = count_selected(score, threshold);
    if (__ballot_sync(kAllLanes, mine != 0) == 0) continue;
    const unsigned up_to = inclusive_sum_over_warp(mine);
    const unsigned earlier = before + up_to - mine;
    unsigned above = earlier & 0xffffu, equal = earlier >> 16;
    before += __shfl_sync(kAllLanes, up_to, kWarp - 1);
    if (mine == 0) continue;
#pragma unroll
    for (int i = 0; i < kTokensPerLane; ++i) {
      const bool is_above = score[i] > threshold, is_equal = score[i] == threshold;
      if (is_above || (is_equal && equal >= skipped)) {
        const unsigned taken = equal > skipped ? equal - skipped : 0;
        const int number = static_cast<int>(first + above + taken);
        const int item = selection * kChunksPerList + number / kChunk;
        const unsigned block = block_of_item(cluster, item);
        unsigned* to =
            list_of_block() + (item - first_item_of_block(cluster, block)) * kChunk + number % kChunk;
        const int position = slice.first + token + i;
        const unsigned entry = list_entry(places, position, status);
        send(to, block, entry, shared.list_mail);
        if (out != nullptr) {
          out[number] = args.write_slots == 0 ? position : slot_of(args, place_of_list_entry(places, entry));
        }
      }
      above += is_above;
      equal += is_equal;
    }
  }
}

}  // namespace adamas_cuda
