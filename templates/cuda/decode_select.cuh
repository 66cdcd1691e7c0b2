// Selection of the decode kernel: scores -> lists of slots in the blocks that attend to them. Every block of
// the cluster counts its scores in a histogram, all exchange theirs, and each finds out what is the score of
// the budget's last token, how many equal ones are its own to select, and where its tokens stand in the list.
// Integers all along, so the answer does not depend on who comes first. The histogram begins at a lower
// bound, the budget's largest of many maxima, so that few scores need to be counted.
#pragma once

#include "templates/cuda/decode_scan.cuh"

namespace adamas_cuda {

/// How many of a lane's maxima reach a score; summed over the warp.
__device__ __forceinline__ int count_maxima(const Maximum (&maxima)[kMaximaWords / kWarp], unsigned score) {
  unsigned counts = 0;
#pragma unroll
  for (const Maximum maximum : maxima) {
    if constexpr (kNarrowScores) {  // both halves at once: bit 15 survives where the half is not below
      counts += (((maximum | 0x80008000u) - score * 0x10001u) & 0x80008000u) >> 15;
    } else {
      counts += maximum >= score;
    }
  }
  return sum_over_warp(static_cast<int>(kNarrowScores ? (counts & 0xffffu) + (counts >> 16) : counts));
}

/// Begins the search for one selection's threshold. By one warp.
__device__ __forceinline__ void bound_threshold(const Cluster& cluster, int selection, int wanted,
                                                DecodeShared& shared) {
  const int filled = maxima_words(cluster) * kDecodeWarps * static_cast<int>(cluster.blocks);
  Maximum maxima[kMaximaWords / kWarp];
  unsigned most = 0, least = ~0u;
#pragma unroll
  for (int i = 0; i < kMaximaWords / kWarp; ++i) {
    const int word = i * kWarp + lane_index();
    const Maximum maximum = word < filled ? shared.maxima[selection][word] : 0;
    const unsigned low = kNarrowScores ? maximum & 0xffffu : maximum;
    const unsigned high = kNarrowScores ? maximum >> 16 : maximum;
    most = max(most, max(low, high));
    if (word < filled) least = min(least, min(low, high));
    maxima[i] = maximum;
  }
  most = __reduce_max_sync(kAllLanes, most);
  least = max(__reduce_min_sync(kAllLanes, least), 1u);
  // At least `wanted` maxima, hence tokens, reach `reached`; fewer reach `missed`. A few more than wanted
  // will do.
  unsigned reached = 0, missed = most + 1;
  const int enough = wanted + wanted / 8;
  int reaching = most == 0 ? 0 : count_maxima(maxima, least);
  if (reaching >= wanted) reached = least;
#pragma unroll 1
  while (reached != 0 && reaching > enough && missed - reached > 1) {
    const unsigned middle = (reached + missed) / 2;
    const int count = count_maxima(maxima, middle);
    if (count >= wanted) {
      reached = middle, reaching = count;
    } else {
      missed = middle;
    }
  }
  if (lane_index() == 0) {
    const unsigned lowest = max(reached, 1u);  // 0 is no token
    const int bits = 32 - __clz(static_cast<int>(max(most, lowest) - lowest));
    shared.search[selection] = {lowest, kForcedScore + 1, static_cast<unsigned>(max(bits - 8, 0)), 0, 0, 0,
                                0};
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

/// Score of one token.
__device__ __forceinline__ unsigned load_score(const unsigned char* scores, int token) {
  return reinterpret_cast<const Score*>(scores)[token];
}

/// Which of eight neighbouring scores reach a bound, 1 .. kForcedScore: bit i is token i.
__device__ __forceinline__ unsigned tokens_reaching(const unsigned char* scores, int token, unsigned bound) {
  if constexpr (kNarrowScores) {
    constexpr unsigned kTops = 0x80008000u;  // survive where a half is not below
    const uint4 words = *reinterpret_cast<const uint4*>(scores + token * 2);
    const unsigned bounds = bound * 0x10001u;
    const unsigned tops =
        (((words.x | kTops) - bounds) & kTops) >> 15 | (((words.y | kTops) - bounds) & kTops) >> 13 |
        (((words.z | kTops) - bounds) & kTops) >> 11 | (((words.w | kTops) - bounds) & kTops) >> 9;
    return (tops | tops >> 15) & 0xffu;
  } else {
    unsigned score[kTokensPerLane], mask = 0;
    load_scores(scores, token, score);
#pragma unroll
    for (int t = 0; t < kTokensPerLane; ++t) {
      mask |= static_cast<unsigned>(score[t] >= bound) << t;
    }
    return mask;
  }
}

__device__ __forceinline__ void count_score(const Search& search, unsigned score, unsigned* bins) {
  if (score < search.lowest || score >= search.top) return;
  atomicAdd(&bins[min((score - search.lowest) >> search.shift, kBins - 1u)], 1u);
}

/// Counts the scores of a warp's slice in the search's first histogram, and lists the tokens that it counts.
/// @return how many they are
__device__ __forceinline__ unsigned list_candidates(const Slice& slice, const unsigned char* scores,
                                                    const Search& search, unsigned* bins,
                                                    unsigned short* candidates) {
  constexpr int kStep = kWarp * kTokensPerLane, kSteps = 4;
  unsigned listed = 0;
#pragma unroll 1
  for (int start = 0; start < slice.tokens; start += kSteps * kStep) {
    unsigned masks = 0;  // a byte a step
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int token = start + step * kStep + lane_index() * kTokensPerLane;
      if (token < slice.tokens) {
        masks |= tokens_reaching(scores, slice.offset + token, search.lowest) << 8 * step;
      }
    }
    const unsigned found = static_cast<unsigned>(sum_over_warp(__popc(masks)));
    if (found == 0) continue;
    const bool fits = listed + found <= kCandidates && found < 256;  // places are bytes
    unsigned place = 0;  // a byte a step: candidates of the step in earlier lanes, then of this one
    unsigned behind = listed;
    if (fits) {
      unsigned counts = 0;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        counts |= static_cast<unsigned>(__popc(masks >> 8 * step & 0xffu)) << 8 * step;
      }
      const unsigned up_to = inclusive_sum_over_warp(counts);
      const unsigned totals = __shfl_sync(kAllLanes, up_to, kWarp - 1);
      // One multiplication makes each byte the sum of those below it.
      place = up_to - counts + totals * 0x01010100u;
    }
#pragma unroll 1
    for (; masks != 0; masks &= masks - 1) {
      const int bit = __ffs(static_cast<int>(masks)) - 1, step = bit / 8;
      const int token = start + step * kStep + lane_index() * kTokensPerLane + bit % 8;
      count_score(search, load_score(scores, slice.offset + token), bins);
      if (!fits) continue;
      candidates[behind + (place >> 8 * step & 0xffu)] = static_cast<unsigned short>(token);
      place += 1u << 8 * step;
    }
    listed = fits ? listed + found : kCandidates + 1;  // no more are listed
  }
  return listed;
}

/// Counts the scores of a warp's slice in a later histogram.
__device__ __forceinline__ void count_scores(const Slice& slice, const unsigned char* scores,
                                             const Search& search, unsigned* bins,
                                             const unsigned short* candidates, unsigned listed) {
  if (listed <= kCandidates) {
#pragma unroll 1
    for (unsigned i = lane_index(); i < listed; i += kWarp) {
      count_score(search, load_score(scores, slice.offset + candidates[i]), bins);
    }
    return;
  }
#pragma unroll 1
  for (int token = lane_index(); token < slice.tokens; token += kWarp) {
    count_score(search, load_score(scores, slice.offset + token), bins);
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
      pairs[pair] = min(two.x, static_cast<unsigned>(kBudget)) | min(two.y, static_cast<unsigned>(kBudget))
                                                                     << 16;
    }
    auto* to = reinterpret_cast<uint4*>(&shared.inbox[selection][cluster.rank][first]);
#pragma unroll 1
    for (unsigned block = 0; block < cluster.blocks; ++block) {
      send(to, block, {pairs[0], pairs[1], pairs[2], pairs[3]}, shared.inbox_mail);
    }
  }
}

/// Sum over a lane's eight bins, two to a word, from bin `from` on.
__device__ __forceinline__ unsigned sum_bins(const unsigned (&pairs)[4], int from) {
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
  static_assert(kMostBlocks * kBudget < 1 << 16, "sums over blocks fit 16 bits");
  Search search = shared.search[selection];
  const auto& inbox = shared.inbox[selection];
  // Bins 8 lane .. 8 lane + 7, of all blocks and of those before this one.
  unsigned all[4] = {}, earlier[4] = {};
#pragma unroll
  for (unsigned block = 0; block < kMostBlocks; ++block) {
    if (block >= cluster.blocks) break;
    const uint4 words = *reinterpret_cast<const uint4*>(&inbox[block][lane_index() * 8]);
    const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      all[pair] += pairs[pair];
      if (block < cluster.rank) earlier[pair] += pairs[pair];
    }
  }
  const unsigned lane_total = sum_bins(all, 0);
  unsigned from_here = lane_total;
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const unsigned later = __shfl_down_sync(kAllLanes, from_here, distance);
    if (lane_index() + distance < kWarp) from_here += later;
  }
  const unsigned needed = wanted - search.above;
  // The last lane from which on there are enough has the bin.
  const unsigned enough = __ballot_sync(kAllLanes, from_here >= needed);
  const int owner = max(31 - __clz(static_cast<int>(enough)), 0);
  int bin = lane_index() * 8;
  unsigned better = from_here - lane_total;  // tokens in better bins
  unsigned reached = better;
#pragma unroll
  for (int i = 7; i >= 0; --i) {
    if (reached >= needed) continue;
    better = reached;
    reached += i % 2 == 0 ? all[i / 2] & 0xffffu : all[i / 2] >> 16;
    bin = lane_index() * 8 + i;
  }
  bin = __shfl_sync(kAllLanes, bin, owner);
  search.above += __shfl_sync(kAllLanes, better, owner);
  search.above_before += static_cast<unsigned>(sum_over_warp(static_cast<int>(sum_bins(earlier, bin + 1))));
  if (bin < kBins - 1) search.top = search.lowest + (static_cast<unsigned>(bin + 1) << search.shift);
  search.lowest += static_cast<unsigned>(bin) << search.shift;
  const int bits = 32 - __clz(static_cast<int>(search.top - search.lowest - 1));
  search.shift = static_cast<unsigned>(max(bits - 8, 0));
  if (!is_open(search)) {
    // Of equal tokens the later ones are selected: the last block's come first. Lane b has block b's.
    const unsigned block = static_cast<unsigned>(lane_index());
    const unsigned equal = block < cluster.blocks ? inbox[block & (kMostBlocks - 1)][bin] : 0;
    unsigned equal_from_here = equal;
#pragma unroll
    for (int distance = 1; distance < kMostBlocks; distance *= 2) {
      equal_from_here += __shfl_down_sync(kAllLanes, equal_from_here, distance);
    }
    const unsigned left = wanted - search.above;
    const unsigned later = equal_from_here - equal;
    const unsigned taken = left > later ? min(left - later, equal) : 0;
    const unsigned before = block < cluster.rank ? taken : 0;
    search.skipped =
        shared.bins[selection][bin] - __shfl_sync(kAllLanes, taken, static_cast<int>(cluster.rank));
    search.first = search.above_before + static_cast<unsigned>(sum_over_warp(static_cast<int>(before)));
  }
  __syncwarp();
  if (lane_index() == 0) shared.search[selection] = search;
}

/// Two counts in one word: tokens above the threshold, fewer than the budget, and from this bit on those
/// equal to it.
constexpr int kEqualBit = 12;
constexpr unsigned kAboveMask = (1u << kEqualBit) - 1;
static_assert(kBudget <= kAboveMask, "tokens above the threshold fit their part of the word");

__device__ __forceinline__ unsigned count_of_score(unsigned score, unsigned threshold) {
  return score > threshold ? 1u : score == threshold ? 1u << kEqualBit : 0u;
}

/// Both counts of a lane's vector.
__device__ __forceinline__ unsigned count_selected(const unsigned (&score)[kTokensPerLane],
                                                   unsigned threshold) {
  unsigned counts = 0;
#pragma unroll
  for (const unsigned s : score) {
    counts += count_of_score(s, threshold);
  }
  return counts;
}

/// The same for a warp's slice.
__device__ __forceinline__ unsigned count_slice(const Slice& slice, const unsigned char* scores,
                                                unsigned threshold, const unsigned short* candidates,
                                                unsigned listed) {
  unsigned counts = 0;
  if (listed <= kCandidates) {
#pragma unroll 1
    for (unsigned i = lane_index(); i < listed; i += kWarp) {
      counts += count_of_score(load_score(scores, slice.offset + candidates[i]), threshold);
    }
  } else {
#pragma unroll 1
    for (int token = lane_index() * kTokensPerLane; token < slice.tokens; token += kWarp * kTokensPerLane) {
      unsigned score[kTokensPerLane];
      load_scores(scores, slice.offset + token, score);
      counts += count_selected(score, threshold);
    }
  }
  return static_cast<unsigned>(sum_over_warp(static_cast<int>(counts)));
}

/// What a list says of a token: its slot, or its slot index where one slot says not enough (there are two
/// tables) or too much (there is none).
constexpr bool kListsIndexes = !kPaged || kSplitTables;

__device__ __forceinline__ unsigned list_entry(const Places& places, int position, unsigned& status) {
  const unsigned index = slot_index(places, position, status);
  if constexpr (kListsIndexes) return index;
  return static_cast<unsigned>(page_of_index(places, index, status)) * kPageSize +
         static_cast<unsigned>(token_of_index(index));
}

__device__ __forceinline__ Place place_of_list_entry(const Places& places, unsigned entry, unsigned& status) {
  if constexpr (kListsIndexes) return place_of_rows(places, entry, status);
  return with_memory(places, {static_cast<int>(entry / kPageSize), static_cast<int>(entry % kPageSize)},
                     status);
}

__device__ __forceinline__ int slot_of_list_entry(const Args& args, const Places& places, unsigned entry,
                                                  unsigned& status) {
  if constexpr (!kListsIndexes) return static_cast<int>(entry);
  return slot_of(args, {page_of_index(places, entry, status), token_of_index(entry)});
}

/// Where selected tokens go.
struct Destination {
  int selection;
  int* out;  ///< the caller's positions of this selection, or null
};

/// Sends a token that is number `number` of its list to the block that attends to it, and writes its position
/// for the caller.
__device__ __forceinline__ void send_token(const Args& args, const Cluster& cluster, const Places& places,
                                           const Destination& to, int number, int position,
                                           DecodeShared& shared, unsigned& status) {
  const int item = to.selection * kChunksPerList + number / kChunk;
  const unsigned block = block_of_item(cluster, item);
  unsigned* const entry_at =
      list_of_block() + (item - first_item_of_block(cluster, block)) * kChunk + number % kChunk;
  const unsigned entry = list_entry(places, position, status);
  send(entry_at, block, entry, shared.list_mail);
  if (to.out != nullptr) {
    to.out[number] = args.write_slots == 0 ? position : slot_of_list_entry(args, places, entry, status);
  }
}

/// Sends the selected tokens of a part of the block's slice.
__device__ __forceinline__ void send_selected(const Args& args, const Cluster& cluster, const Places& places,
                                              const Slice& slice, int part, const Destination& to,
                                              const unsigned char* scores, DecodeShared& shared,
                                              unsigned& status) {
  const Search& search = shared.search[to.selection];
  const unsigned threshold = search.lowest, skipped = search.skipped, first = search.first;
  // Above and equal, in this block's earlier tokens.
  static_assert(kListWarps <= kWarp, "a lane adds a part's counts");
  unsigned before = static_cast<unsigned>(sum_over_warp(
      static_cast<int>(lane_index() < part ? shared.list_counts[to.selection][lane_index()] : 0u)));
  const unsigned listed = shared.candidate_counts[to.selection][part];
  if (listed <= kCandidates) {
    const unsigned short* candidates = candidates_of(args, cluster, to.selection, part);
    unsigned above_before = before & kAboveMask, equal_before = before >> kEqualBit;
#pragma unroll 1
    for (unsigned start = 0; start < listed; start += kWarp) {
      const unsigned i = start + lane_index();
      const int token = i < listed ? candidates[i] : 0;
      const unsigned score = i < listed ? load_score(scores, slice.offset + token) : 0;
      const unsigned earlier = (1u << lane_index()) - 1;
      const unsigned above = __ballot_sync(kAllLanes, score > threshold);
      const unsigned equal = __ballot_sync(kAllLanes, score == threshold);
      const unsigned equals = equal_before + __popc(equal & earlier);
      if (score > threshold || (score == threshold && equals >= skipped)) {
        const unsigned taken = equals > skipped ? equals - skipped : 0;
        const unsigned number = first + above_before + __popc(above & earlier) + taken;
        send_token(args, cluster, places, to, static_cast<int>(number), slice.first + token, shared, status);
      }
      above_before += __popc(above);
      equal_before += __popc(equal);
    }
    return;
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
    unsigned above = earlier & kAboveMask, equal = earlier >> kEqualBit;
    before += __shfl_sync(kAllLanes, up_to, kWarp - 1);
    if (mine == 0) continue;
#pragma unroll 1
    for (int i = 0; i < kTokensPerLane; ++i) {
      const unsigned s = load_score(scores, slice.offset + token + i);
      if (s > threshold || (s == threshold && equal >= skipped)) {
        const unsigned taken = equal > skipped ? equal - skipped : 0;
        send_token(args, cluster, places, to, static_cast<int>(first + above + taken),
                   slice.first + token + i, shared, status);
      }
      above += s > threshold;
      equal += s == threshold;
    }
  }
}

}  // namespace adamas_cuda
