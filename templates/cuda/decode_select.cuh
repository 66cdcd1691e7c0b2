// Lists of the decode kernel, where too many tokens reach the bound for decode_list.cuh: ties, bursts, large
// budgets. Every block of the cluster counts its scores in a histogram, all exchange theirs, and each finds
// out what is the score of the budget's last token, how many equal ones are its own to select, and where its
// tokens stand in the list; it sends them to the blocks that attend to the list. Integers all along, so the
// answer does not depend on who comes first.
#pragma once

#include "templates/cuda/decode_list.cuh"

namespace adamas_cuda {

/// Whether a search goes on after a histogram.
__device__ __forceinline__ bool is_open(const Search& search) { return search.top - search.lowest > 1; }

/// Which token of the block's slice a candidate is.
__device__ __forceinline__ int token_of(const Shares& shares, Candidate candidate) {
  return static_cast<int>(candidate & ((1u << shares.token_bits()) - 1)) - shares.begin;
}

/// A lane's tokens that go to the same bin one after the other, as ties do. They are added to it together, as
/// additions to one bin take turns.
struct BinCount {
  unsigned bin, tokens;

  __device__ __forceinline__ void add(const Search& search, unsigned score, unsigned amount, unsigned* bins) {
    if (score < search.lowest || score >= search.top) return;
    const unsigned of_score = min((score - search.lowest) >> search.shift, kBins - 1u);
    if (of_score != bin) {
      flush(bins);
      bin = of_score, tokens = 0;
    }
    tokens += amount;
  }
  __device__ __forceinline__ void flush(unsigned* bins) const {
    if (tokens != 0) atomicAdd(&bins[bin], tokens);
  }
};

/// Whether eight neighbouring scores are all `score`.
__device__ __forceinline__ bool all_are(const unsigned char* scores, int token, unsigned score) {
  constexpr int kVectors = kTokensPerLane * static_cast<int>(sizeof(Score)) / 16;
  const auto* const vectors = reinterpret_cast<const uint4*>(scores + token * sizeof(Score));
  const unsigned word = kNarrowScores ? score * 0x10001u : score;
  unsigned different = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const uint4 words = vectors[v];
    different |= (words.x ^ word) | (words.y ^ word) | (words.z ^ word) | (words.w ^ word);
  }
  return different == 0;
}

/// Counts the scores of a warp's slice in the search's histogram.
__device__ __forceinline__ void count_scores(const Shares& shares, const Slice& slice,
                                             const unsigned char* scores, const Search& search,
                                             unsigned* bins, const Candidate* candidates, unsigned listed) {
  BinCount count = {};
  if (listed <= kCandidates) {
#pragma unroll 1
    for (unsigned i = lane_index(); i < listed; i += kWarp) {
      count.add(search, load_score(scores, token_of(shares, candidates[i])), 1, bins);
    }
  } else {
#pragma unroll 1
    for (int token = lane_index() * kTokensPerLane; token < slice.tokens; token += kWarp * kTokensPerLane) {
      const int first = slice.offset + token;
      const unsigned score = load_score(scores, first);
      const int alike = all_are(scores, first, score) ? kTokensPerLane : 1;
#pragma unroll 1
      for (int i = 0; i < kTokensPerLane; i += alike) {
        count.add(search, load_score(scores, first + i), static_cast<unsigned>(alike), bins);
      }
    }
  }
  count.flush(bins);
}

/// Sends this block's histograms to every block. Counts beyond the budget are cut off: they say enough.
__device__ __forceinline__ void send_bins(const Args& args, const Cluster& cluster, DecodeShared& shared) {
  constexpr int kVectors = kBins / 8;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kSelections * kVectors; i += kDecodeThreads) {
    const int selection = i / kVectors, first = i % kVectors * 8;
    if (shared.totals[selection] != kTooMany) continue;
    unsigned pairs[4];
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      const uint2 two = *reinterpret_cast<const uint2*>(&shared.maxima[selection][first + 2 * pair]);
      pairs[pair] = min(two.x, static_cast<unsigned>(kBudget)) | min(two.y, static_cast<unsigned>(kBudget))
                                                                     << 16;
    }
    auto* to = reinterpret_cast<uint4*>(histogram_of(args, selection, cluster.rank) + first);
#pragma unroll 1
    for (unsigned block = 0; block < cluster.blocks; ++block) {
      send(to, cluster.address_of(block), {pairs[0], pairs[1], pairs[2], pairs[3]}, shared.histograms_mail);
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
__device__ __forceinline__ void narrow_search(const Args& args, const Cluster& cluster, int selection,
                                              unsigned wanted, DecodeShared& shared) {
  static_assert(kMostBlocks * kBudget < 1 << 16, "sums over blocks fit 16 bits");
  Search search = shared.search[selection];
  // Bins 8 lane .. 8 lane + 7, of all blocks and of those before this one.
  unsigned all[4] = {}, earlier[4] = {};
#pragma unroll
  for (unsigned block = 0; block < kMostBlocks; ++block) {
    if (block >= cluster.blocks) break;
    const uint4 words =
        *reinterpret_cast<const uint4*>(histogram_of(args, selection, block) + lane_index() * 8);
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
    const unsigned equal = block < cluster.blocks ? histogram_of(args, selection, block)[bin] : 0;
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
        shared.maxima[selection][bin] - __shfl_sync(kAllLanes, taken, static_cast<int>(cluster.rank));
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
__device__ __forceinline__ unsigned count_slice(const Shares& shares, const Slice& slice,
                                                const unsigned char* scores, unsigned threshold,
                                                const Candidate* candidates, unsigned listed) {
  unsigned counts = 0;
  if (listed <= kCandidates) {
#pragma unroll 1
    for (unsigned i = lane_index(); i < listed; i += kWarp) {
      counts += count_of_score(load_score(scores, token_of(shares, candidates[i])), threshold);
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
  send(entry_at, cluster.address_of(block), entry, shared.list_mail);
  if (to.out != nullptr) {
    to.out[number] = args.write_slots == 0 ? position : slot_of_list_entry(args, places, entry, status);
  }
}

/// Sends the selected tokens of a part of the block's slice.
__device__ __forceinline__ void send_selected(const Args& args, const Cluster& cluster, const Places& places,
                                              const Shares& shares, const Slice& slice, int part,
                                              const Destination& to, const unsigned char* scores,
                                              DecodeShared& shared, unsigned& status) {
  const Search& search = shared.search[to.selection];
  const unsigned threshold = search.lowest, skipped = search.skipped, first = search.first;
  // Above and equal, in this block's earlier tokens.
  static_assert(kListWarps <= kWarp, "a lane adds a part's counts");
  unsigned before = static_cast<unsigned>(sum_over_warp(
      static_cast<int>(lane_index() < part ? shared.list_counts[to.selection][lane_index()] : 0u)));
  const unsigned listed = shared.candidate_counts[to.selection][part];
  if (listed <= kCandidates) {
    const Candidate* candidates = candidates_of(args, cluster, to.selection, part);
    unsigned above_before = before & kAboveMask, equal_before = before >> kEqualBit;
#pragma unroll 1
    for (unsigned start = 0; start < listed; start += kWarp) {
      const unsigned i = start + lane_index();
      const int token = i < listed ? token_of(shares, candidates[i]) : slice.offset;
      const unsigned score = i < listed ? load_score(scores, token) : 0;
      const unsigned earlier = (1u << lane_index()) - 1;
      const unsigned above = __ballot_sync(kAllLanes, score > threshold);
      const unsigned equal = __ballot_sync(kAllLanes, score == threshold);
      const unsigned equals = equal_before + __popc(equal & earlier);
      if (score > threshold || (score == threshold && equals >= skipped)) {
        const unsigned taken = equals > skipped ? equals - skipped : 0;
        const unsigned number = first + above_before + __popc(above & earlier) + taken;
        send_token(args, cluster, places, to, static_cast<int>(number), slice.first + token - slice.offset,
                   shared, status);
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
    const unsigned all = __shfl_sync(kAllLanes, up_to, kWarp - 1);
    before += all;
    // Of ties, few are late enough.
    if ((all & kAboveMask) == 0 && before >> kEqualBit <= skipped) continue;
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

/// Finds the lists that have too many candidates, and waits for the entries of this block's items.
/// @param part_slice    the part of the block's slice that this warp looks at
/// @param first_of_row  number of the row's first list in the call
__device__ __forceinline__ void search_lists(const Args& args, const Cluster& cluster, const Places& places,
                                             const Shares& shares, const Slice& part_slice, i64 first_of_row,
                                             int first, int past, int selected, DecodeShared& shared,
                                             unsigned char* scores, unsigned& status) {
  const int part = warp_index() % kListWarps, first_list = warp_index() / kListWarps;
  const int stride = score_bytes(cluster.capacity);
  unsigned histogram_bytes = 0;
#pragma unroll 1
  for (int selection = 0; selection < kSelections; ++selection) {
    if (shared.totals[selection] == kTooMany) histogram_bytes += cluster.blocks * kBins * 2;
  }
  if (threadIdx.x == 0) {
    int listed = 0;
#pragma unroll 1
    for (int item = first; item < past; ++item) {
      if (shared.totals[item / kChunksPerList] == kTooMany) listed += tokens_of_item(item, selected);
    }
    expect(shared.list_mail, listed * sizeof(unsigned));
  }
#pragma unroll 1
  for (unsigned delivery = 0, open = 1; open != 0; ++delivery) {
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kSelections * kBins; i += kDecodeThreads) {
      if (shared.totals[i / kBins] == kTooMany) shared.maxima[i / kBins][i % kBins] = 0;
    }
    if (threadIdx.x == 0) expect(shared.histograms_mail, histogram_bytes);
    // All blocks have read what the inbox held, and expect what comes.
    __syncthreads();
    if (threadIdx.x < cluster.blocks) signal(shared.ready_mail, cluster.address_of(threadIdx.x));
    wait_for_mail(shared.ready_mail, delivery);
#pragma unroll 1
    for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
      if (shared.totals[selection] != kTooMany || !is_open(shared.search[selection])) continue;
      count_scores(shares, part_slice, scores + selection * stride, shared.search[selection],
                   shared.maxima[selection], candidates_of(args, cluster, selection, part),
                   shared.candidate_counts[selection][part]);
    }
    __syncthreads();
    send_bins(args, cluster, shared);
    wait_for_mail(shared.histograms_mail, delivery);
#pragma unroll 1
    for (int selection = warp_index(); selection < kSelections; selection += kDecodeWarps) {
      if (shared.totals[selection] == kTooMany && is_open(shared.search[selection])) {
        narrow_search(args, cluster, selection, selected, shared);
      }
    }
    __syncthreads();
    open = 0;
#pragma unroll 1
    for (int selection = 0; selection < kSelections; ++selection) {
      open |= shared.totals[selection] == kTooMany && is_open(shared.search[selection]);
    }
  }

#pragma unroll 1
  for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
    if (shared.totals[selection] != kTooMany) continue;
    const unsigned counts =
        count_slice(shares, part_slice, scores + selection * stride, shared.search[selection].lowest,
                    candidates_of(args, cluster, selection, part), shared.candidate_counts[selection][part]);
    if (lane_index() == 0) shared.list_counts[selection][part] = counts;
  }
  __syncthreads();
#pragma unroll 1
  for (int selection = first_list; selection < kSelections; selection += kListsAtOnce) {
    if (shared.totals[selection] != kTooMany) continue;
    int* out = args.positions == nullptr ? nullptr : args.positions + (first_of_row + selection) * kBudget;
    send_selected(args, cluster, places, shares, part_slice, part, {selection, out},
                  scores + selection * stride, shared, status);
  }
  wait_for_mail(shared.list_mail, 0);
}

}  // namespace adamas_cuda
