// Lists of the decode kernel, the quick way: every block lists the few tokens that reach the bound and sends
// them to the blocks that attend to the list, which find out among them the budget's best and where they
// stand in the list. Integers all along, so the answer does not depend on who comes first. Where too many
// reach the bound, decode_select.cuh takes over.
#pragma once

#include "templates/cuda/decode_bound.cuh"

namespace adamas_cuda {

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

/// Tokens that a lane has found to reach a bound: bit i is token `first` + i of the block's slice.
struct Found {
  int first;
  unsigned low, high;

  __device__ __forceinline__ int count() const { return __popc(low) + __popc(high); }

  /// The first of them, which is taken away. There is one.
  __device__ __forceinline__ int next() {
    const bool from_low = low != 0;
    const int token = from_low ? __ffs(static_cast<int>(low)) - 1 : 31 + __ffs(static_cast<int>(high));
    (from_low ? low : high) &= (from_low ? low : high) - 1;
    return first + token;
  }
};

constexpr int kGroupsOfPiece = kPiece / kTokensPerLane;
static_assert(kPiece <= 64, "two words of bits");

/// Looks through one of the pieces `reaching` for each lane that has one: lane l has piece `first` + l.
__device__ __forceinline__ Found find_in_pieces(const unsigned char* scores, int first, unsigned reaching,
                                                unsigned bound) {
  Found found = {(first + lane_index()) * kPiece, 0, 0};
  if ((reaching >> lane_index() & 1u) == 0) return found;
#pragma unroll 2  // once for all groups, the instructions take longer to come than they save
  for (int g = 0; g < kGroupsOfPiece; ++g) {
    const int group = (g + lane_index()) % kGroupsOfPiece;  // neighbouring lanes read from other banks
    const unsigned mask = tokens_reaching(scores, found.first + group * kTokensPerLane, bound)
                          << group % 4 * kTokensPerLane;
    if (group < 4) {
      found.low |= mask;
    } else {
      found.high |= mask;
    }
  }
  return found;
}

/// Looks through the first few of the pieces `reaching`, all lanes of the warp together, and takes them away.
__device__ __forceinline__ Found find_together(const unsigned char* scores, int first, unsigned& reaching,
                                               unsigned bound) {
  constexpr int kAtOnce = kWarp / kGroupsOfPiece;
  unsigned rest = reaching;  // less the pieces of earlier lanes
#pragma unroll
  for (int i = 1; i < kAtOnce; ++i) {
    if (lane_index() / kGroupsOfPiece >= i) rest &= rest - 1;
    reaching &= reaching - 1;
  }
  reaching &= reaching - 1;
  if (rest == 0) return {};
  const int token =
      (first + __ffs(static_cast<int>(rest)) - 1) * kPiece + lane_index() % kGroupsOfPiece * kTokensPerLane;
  return {token, tokens_reaching(scores, token, bound), 0};
}

/// Lists the tokens of a part of the block's slice that reach a bound, in order.
/// @return how many they are, or more than kCandidates: then the list is of no use
__device__ __forceinline__ unsigned list_candidates(const Shares& shares, const Slice& part,
                                                    const unsigned char* scores, const Score* maxima,
                                                    unsigned bound, Candidate* candidates) {
  constexpr int kFewPieces = 2 * kWarp / kGroupsOfPiece;  // that the warp looks through sooner together
  const int pieces = part.tokens / kPiece;
  const unsigned most = ~0u >> shares.token_bits();  // that a score can exceed the bound by
  unsigned listed = 0;
  bool cut_off = false;
#pragma unroll 1
  for (int start = 0; start < pieces; start += kWarp) {
    const int first = part.offset / kPiece + start;
    const bool has_piece = start + lane_index() < pieces;
    unsigned reaching = __ballot_sync(kAllLanes, has_piece && maxima[first + lane_index()] >= bound);
#pragma unroll 1
    while (reaching != 0) {
      Found found;
      if (__popc(reaching) > kFewPieces) {
        found = find_in_pieces(scores, first, reaching, bound);
        reaching = 0;
      } else {
        found = find_together(scores, first, reaching, bound);
      }
      const auto count = static_cast<unsigned>(found.count());
      const unsigned up_to = inclusive_sum_over_warp(count);
      unsigned place = listed + up_to - count;
      const unsigned past = place + count;
      listed += __shfl_sync(kAllLanes, up_to, kWarp - 1);
      if (listed > kCandidates) return kCandidates + 1;
#pragma unroll 1
      for (; place < past; ++place) {
        const int token = found.next();
        const unsigned excess = load_score(scores, token) - bound;
        cut_off |= excess > most;
        candidates[place] = excess << shares.token_bits() | static_cast<unsigned>(shares.begin + token);
      }
    }
  }
  return __ballot_sync(kAllLanes, cut_off) != 0 ? kCandidates + 1 : listed;
}

/// What a list says of a token: its slot, or its slot index where one slot says not enough (there are two
/// tables) or too much (there is none).
constexpr bool kListsIndexes = !kPaged || kSplitTables;

/// What a table has for a position, if its list entry needs it: a load that nobody waits for yet.
__device__ __forceinline__ int load_entry_page(const Places& places, int position) {
  if constexpr (kListsIndexes) return 0;
  return places.table[min(places.start + static_cast<unsigned>(position), places.last) / kPageSize];
}

/// @param page  what load_entry_page has loaded
__device__ __forceinline__ unsigned list_entry(const Places& places, int position, int page,
                                               unsigned& status) {
  const unsigned index = slot_index(places, position, status);
  if constexpr (kListsIndexes) return index;
  return static_cast<unsigned>(page_inside(places, page, status)) * kPageSize +
         static_cast<unsigned>(token_of_index(index));
}

__device__ __forceinline__ unsigned list_entry(const Places& places, int position, unsigned& status) {
  return list_entry(places, position, load_entry_page(places, position), status);
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

/// The blocks that attend to a list, neighbours.
struct Readers {
  unsigned first, last;
};

__device__ __forceinline__ Readers readers_of(const Cluster& cluster, int selection) {
  const int item = selection * kChunksPerList;
  return {block_of_item(cluster, item), block_of_item(cluster, item + kChunksPerList - 1)};
}

__device__ __forceinline__ unsigned excess_of(const Shares& shares, Candidate candidate) {
  return candidate >> shares.token_bits();
}

/// The position of a candidate.
__device__ __forceinline__ int position_of(const Shares& shares, Candidate candidate) {
  return shares.first + static_cast<int>(candidate & ((1u << shares.token_bits()) - 1));
}

/// Sends the candidates that a warp has listed to the readers of the list, which count them by excess, and
/// the block's count of them to all blocks. All warps of the block have listed theirs.
__device__ __forceinline__ void send_candidates(const Args& args, const Cluster& cluster,
                                                const Shares& shares, int selection, int part,
                                                const Candidate* candidates, DecodeShared& shared) {
  static_assert(kListWarps <= kWarp, "a lane has a part's count");
  const unsigned count = lane_index() < kListWarps ? shared.candidate_counts[selection][lane_index()] : 0;
  const bool fits = __ballot_sync(kAllLanes, count > kCandidates) == 0;
  const auto total = static_cast<unsigned>(sum_over_warp(static_cast<int>(count)));
  const int most = inbox_part(args, cluster);
  const bool sends = kMostCandidates > 0 && fits && total <= static_cast<unsigned>(most);
  const Readers readers = readers_of(cluster, selection);
  const auto block = static_cast<unsigned>(lane_index());
  if (part == 0 && block < cluster.blocks) {
    const bool reads = block >= readers.first && block <= readers.last;
    const unsigned address = cluster.address_of(block);
    announce(shared.candidates_mail, address, sends && reads ? 4 * (1 + 2 * total) : 4);
    send(&shared.block_counts[selection][cluster.rank], address, sends ? total : kTooMany,
         shared.candidates_mail);
  }
  if (!sends) return;
  const auto before = static_cast<unsigned>(sum_over_warp(static_cast<int>(lane_index() < part ? count : 0)));
  const unsigned listed = __shfl_sync(kAllLanes, count, part);
  Candidate* const to = inbox_of(args, selection) + static_cast<int>(cluster.rank) * most + before;
#pragma unroll 1
  for (unsigned i = lane_index(); i < listed; i += kWarp) {
    const Candidate candidate = candidates[i];
    unsigned* const counter = &shared.excesses[selection][min(excess_of(shares, candidate), kExcesses - 1u)];
#pragma unroll 1
    for (unsigned reader = readers.first; reader <= readers.last; ++reader) {
      send(to + i, cluster.address_of(reader), candidate, shared.candidates_mail);
      send_count(counter, cluster.address_of(reader), 1, shared.candidates_mail);
    }
  }
}

/// How many candidates of a list each block has sent, and the total.
struct Counts {
  unsigned of_block[kMostBlocks];
  unsigned total;  ///< kTooMany if that is what it is
};

/// All mail is there.
__device__ __forceinline__ Counts count_candidates(int selection, const DecodeShared& shared) {
  Counts counts;
  static_assert(kMostBlocks == 8, "two loads");
  const auto* fours = reinterpret_cast<const uint4*>(shared.block_counts[selection]);
  const uint4 low = fours[0], high = fours[1];
  const unsigned all[kMostBlocks] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  bool too_many = false;
  counts.total = 0;
#pragma unroll
  for (int block = 0; block < kMostBlocks; ++block) {
    counts.of_block[block] = all[block];
    counts.total += all[block];
    too_many |= all[block] == kTooMany;
  }
  if (too_many || counts.total > kMostCandidates) counts.total = kTooMany;
  return counts;
}

/// Candidate `number` of a list, by position, as the blocks have sent them.
__device__ __forceinline__ Candidate candidate_of(const Args& args, const Cluster& cluster, int selection,
                                                  const Counts& counts, unsigned number) {
  unsigned before = 0, block = 0, past = 0;
#pragma unroll
  for (unsigned b = 1; b < kMostBlocks; ++b) {
    past += counts.of_block[b - 1];
    if (number >= past) before = past, block = b;
  }
  return inbox_of(
      args,
      selection)[static_cast<int>(block) * inbox_part(args, cluster) + static_cast<int>(number - before)];
}

/// Finds out which of a list's candidates are selected. By one warp.
__device__ __forceinline__ Threshold find_threshold(const Args& args, const Cluster& cluster,
                                                    const Shares& shares, int selection, const Counts& counts,
                                                    int wanted, const DecodeShared& shared) {
  // Counts of excesses 4 lane .. 4 lane + 3, and of those and better ones.
  const uint4 four = *reinterpret_cast<const uint4*>(&shared.excesses[selection][4 * lane_index()]);
  const unsigned of_excess[4] = {four.x, four.y, four.z, four.w};
  static_assert(kExcesses == 4 * kWarp, "a lane has four counts");
  const unsigned mine = four.x + four.y + four.z + four.w;
  int from_here = static_cast<int>(mine);
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const int later = __shfl_down_sync(kAllLanes, from_here, distance);
    if (lane_index() + distance < kWarp) from_here += later;
  }
  // The last lane from which on there are enough has the threshold.
  const int owner = 31 - __clz(static_cast<int>(__ballot_sync(kAllLanes, from_here >= wanted)));
  int reaching = from_here - static_cast<int>(mine);
  int excess = 4 * lane_index() + 4;
#pragma unroll
  for (int i = 3; i >= 0; --i) {
    if (reaching >= wanted) continue;
    reaching += static_cast<int>(of_excess[i]);
    excess = 4 * lane_index() + i;
  }
  Threshold threshold = {static_cast<unsigned>(__shfl_sync(kAllLanes, excess, owner)),
                         __shfl_sync(kAllLanes, reaching, owner) - wanted};
  if (threshold.excess < kExcesses - 1) return threshold;
  // Beyond what is counted one by one: at least `wanted` reach `excess`, fewer reach `missed`.
  unsigned missed = (~0u >> shares.token_bits()) + 1;
#pragma unroll 1
  while (missed - threshold.excess > 1) {
    const unsigned middle = threshold.excess + (missed - threshold.excess) / 2;
    int count = 0;
#pragma unroll 1
    for (unsigned i = lane_index(); i < counts.total; i += kWarp) {
      count += excess_of(shares, candidate_of(args, cluster, selection, counts, i)) >= middle;
    }
    count = sum_over_warp(count);
    if (count >= wanted) {
      threshold = {middle, count - wanted};
    } else {
      missed = middle;
    }
  }
  return threshold;
}

/// Brings a list's candidates together by position, with their list entries: 32 a warp, so that the warps
/// that have none leave the processor to the others.
__device__ __forceinline__ void look_up_entries(const Args& args, const Cluster& cluster,
                                                const Places& places, const Shares& shares, int selection,
                                                const Counts& counts, int warp, int warps,
                                                DecodeShared& shared, unsigned& status) {
  const auto step = static_cast<unsigned>(warps * kWarp);
#pragma unroll 1
  for (auto i = static_cast<unsigned>(warp * kWarp + lane_index()); i < counts.total; i += step) {
    const Candidate candidate = candidate_of(args, cluster, selection, counts, i);
    shared.maxima[selection][i] = candidate;
    shared.entries[selection][i] = list_entry(places, position_of(shares, candidate), status);
  }
}

/// Stores the selected entries of a list that belong to the block's items `first_item` .. `past_item` - 1. By
/// a warp, for 32 candidates.
/// @param group  32 of them: which
/// @param out    the caller's positions of this selection, if it is this block that writes them, or null
__device__ __forceinline__ void store_entries(const Args& args, const Places& places, const Shares& shares,
                                              int selection, int total, int group, int first_item,
                                              int past_item, const DecodeShared& shared, int* out,
                                              unsigned& status) {
  const Threshold threshold = shared.thresholds[selection];
  const Candidate* const candidates = shared.maxima[selection];
  // Of group `lane`: which of its candidates are better than the threshold, and which equal it.
  unsigned are_above = 0, are_equal = 0;
#pragma unroll
  for (int g = 0; g < kMostCandidates / kWarp; ++g) {
    const unsigned excess = excess_of(shares, candidates[g * kWarp + lane_index()]);
    const bool exists = g * kWarp + lane_index() < total;
    const unsigned above = __ballot_sync(kAllLanes, exists && excess > threshold.excess);
    const unsigned equal = __ballot_sync(kAllLanes, exists && excess == threshold.excess);
    if (lane_index() == g) are_above = above, are_equal = equal;
  }
  const int before = sum_over_warp(lane_index() < group ? __popc(are_above) | __popc(are_equal) << 16 : 0);
  are_above = __shfl_sync(kAllLanes, are_above, group), are_equal = __shfl_sync(kAllLanes, are_equal, group);
  const unsigned earlier = (1u << lane_index()) - 1;
  const int above = (before & 0xffff) + __popc(are_above & earlier);
  const int equal = (before >> 16) + __popc(are_equal & earlier);
  const bool is_above = (are_above >> lane_index() & 1u) != 0,
             is_equal = (are_equal >> lane_index() & 1u) != 0;
  if (!is_above && !(is_equal && equal >= threshold.skipped)) return;
  const Candidate candidate = candidates[group * kWarp + lane_index()];
  const int number = above + max(equal - threshold.skipped, 0);
  const unsigned entry = shared.entries[selection][group * kWarp + lane_index()];
  const int place = (selection * kChunksPerList - first_item) * kChunk + number;
  if (place >= 0 && place < (past_item - first_item) * kChunk) list_of_block()[place] = entry;
  if (out == nullptr) return;
  out[number] = args.write_slots == 0 ? position_of(shares, candidate)
                                      : slot_of_list_entry(args, places, entry, status);
}

}  // namespace adamas_cuda
