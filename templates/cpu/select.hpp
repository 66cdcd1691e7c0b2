// select: kept order keys -> the best positions, ascending.
//
// Work item: one selection (y) of one row (z). Linear in what the scan kept, and exact. Forced tokens are a
// prefix and a suffix of what the row sees; between them the cut is found by counting keys, never by sorting:
//   1. one pass counts the kept keys by value (a second one refines the bin where values are many),
//   2. one pass writes the positions above the cut, and of those that tie at the cut the latest.
// Where fewer tokens than wanted reach the key that the scan was to keep, all are scored again.
#pragma once

#include "templates/cpu/open_range.hpp"
#include "templates/cpu/scan.hpp"

namespace adamas_cpu {

constexpr int kBins = 4096;

/// The worst key selected, how many of its holders are not (the earliest are left out).
struct Cut {
  u32 key;
  i64 left_out;
};

constexpr int bin_shift(u32 span) {
  int shift = 0;
  while (span >> shift >= kBins)
    ++shift;
  return shift;
}

/// The highest bin such that it and those above hold at least `wanted`, none above `top`; `above` becomes
/// what those above hold.
ADAMAS_INLINE int bin_of_rank(const u32* bins, int top, i64 wanted, i64& above) {
  int bin = top;
  above = 0;
  ADAMAS_ROLLED
  for (; bin > 0 && above + bins[bin] < wanted; --bin)
    above += bins[bin];
  return bin;
}

ADAMAS_INLINE void clear(u32* bins, int count) {
  ADAMAS_ROLLED
  for (int i = 0; i < count; ++i)
    bins[i] = 0;
}

/// The cut that leaves `wanted` (1 .. open.size() - 1) of the open tokens. False, where too few of those that
/// were kept reach `least`.
ADAMAS_FUNCTION bool find_cut(const KeptKeys& kept, const Row& row, const OpenRange& open, u32 least,
                              Cut& cut) {
  u32 bins[kBins];
  u32 low = least, span = kKeyLimit - least;
  i64 wanted = open.wanted;
  for (;;) {
    const int shift = bin_shift(span);
    clear(bins, static_cast<int>(span >> shift) + 1);
    i64 counted = 0;
    u32 top = 0;
    for_kept(kept, row, open.begin, open.end, low, span, [&](i64, u32 key) {
      if (key - low > span) return;
      const u32 bin = (key - low) >> shift;
      ++bins[bin];
      ++counted;
      top = larger(top, bin);
    });
    if (counted < wanted) return false;
    i64 above;
    const int bin = bin_of_rank(bins, static_cast<int>(top), wanted, above);
    if (shift == 0) {
      cut = {low + static_cast<u32>(bin), above + bins[bin] - wanted};
      return true;
    }
    // Many values share the bin: count again within it, for the rest.
    wanted -= above;
    low += static_cast<u32>(bin) << shift;
    span = (1u << shift) - 1;
  }
}

/// The cut, after a second look at all tokens where the first kept too few.
ADAMAS_FUNCTION Cut surely_find_cut(const Args& args, const Row& row, const OpenRange& open, i64 selection) {
  const i64 head = selection / kSelectionsPerKvHead;
  const int member = static_cast<int>(selection % kSelectionsPerKvHead);
  const KeptKeys kept = kept_keys(args, row.number, selection);
  Cut cut;
  if (find_cut(kept, row, open, key_rule(prepared_query(args, row.number, head * kGroup + member)).least,
               cut))
    return cut;
  const i64 last = tile_of_index(row, row.start + row.own);
  u32 reported = 0;  // by the scan
  ADAMAS_ROLLED
  for (i64 tile = tile_of_index(row, row.start + row.first); tile <= last; ++tile) {
    if (kept.counts[tile] != kWholeTile) keep_tile(args, row, head, tile, {member, 1}, true, reported);
  }
  return find_cut(kept, row, open, 0, cut) ? cut
                                           : Cut{0, 0};  // keys beyond the limit are not what scan writes
}

/// Positions as they are chosen, never more than the budget.
struct Chosen {
  int* positions;
  i64 limit;
  i64 used = 0;

  void add(i64 position) { add_if(true, position); }
  /// Writes first and decides then: nobody could guess which of the candidates are chosen.
  void add_if(bool wanted, i64 position) {
    if (used >= limit) return;
    positions[used] = static_cast<int>(position);
    used += wanted;
  }
};

/// Chooses min(budget, visible) positions of a row.
ADAMAS_FUNCTION i64 choose(const Args& args, const Row& row, i64 selection, int* positions) {
  const OpenRange open = open_range(args, row);
  Chosen chosen{positions, open.limit};
  ADAMAS_ROLLED
  for (i64 p = open.begin - open.sink; p < open.begin; ++p)
    chosen.add(p);
  if (open.wanted == open.size()) {
    ADAMAS_ROLLED
    for (i64 p = open.begin; p < open.end; ++p)
      chosen.add(p);
  } else if (open.wanted > 0) {
    Cut cut = surely_find_cut(args, row, open, selection);
    for_kept(kept_keys(args, row.number, selection), row, open.begin, open.end, cut.key, kKeyLimit - cut.key,
             [&](i64 position, u32 key) {
               const bool ties = key == cut.key, left_out = ties && cut.left_out > 0;
               cut.left_out -= ties;
               chosen.add_if(key >= cut.key && !left_out, position);
             });
  }
  ADAMAS_ROLLED
  for (i64 p = row.own + 1 - open.recent; p <= row.own; ++p)
    chosen.add(p);
  return chosen.used;
}

/// Raw scores of all the sequence's positions: INT_MIN where the row does not see. All keys must have been
/// kept.
ADAMAS_FUNCTION void write_scores(const Row& row, const KeptKeys& kept, int* scores) {
  constexpr int kUnseen = -2147483647 - 1;
  ADAMAS_ROLLED
  for (i64 p = 0; p < row.length; ++p) {
    scores[p] = kUnseen;
    if (p < row.first || p > row.own) continue;
    const i64 tile = tile_of_index(row, row.start + p);
    const int key = kept.whole(tile)[row.start + p - tiles_begin(row) - tile * kScanTile];
    scores[p] = kDot ? key - kScoreLimit : kScoreLimit - key;
  }
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_select(const adamas_abi::Args* args, unsigned, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (needs_no_lists(*args, row)) return;
  const i64 selection = row.number * args->kv_heads * kSelectionsPerKvHead + y;
  int* const positions = args->positions + selection * kBudget;

  const i64 chosen = choose(*args, row, y, positions);
  ADAMAS_ROLLED
  for (i64 i = chosen; i < kBudget; ++i)
    positions[i] = -1;
  args->counts[selection] = static_cast<int>(chosen);
  if (args->out == nullptr) count_row(*args, row, kGroup / kSelectionsPerKvHead, y);  // select alone, no merge

  if (args->out_counts != nullptr) args->out_counts[selection] = static_cast<int>(chosen);
  if (args->out_positions != nullptr) {
    int* const out = args->out_positions + selection * kBudget;
    u32 status = 0;
    ADAMAS_ROLLED
    for (i64 i = 0; i < kBudget; ++i) {
      out[i] = positions[i];
      if (!args->write_slots || i >= chosen) continue;
      out[i] = static_cast<int>(slot_of_index(*args, row, row.start + positions[i], status).number(*args));
    }
    report(*args, status);
  }
  if (args->out_scores != nullptr) {
    write_scores(row, kept_keys(*args, row.number, y), args->out_scores + selection * args->max_tokens);
  }
}
