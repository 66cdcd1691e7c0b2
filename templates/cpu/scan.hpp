// scan: codes -> order keys of every visible token, of which those worth a choice are kept.
//
// Work item: one tile of kScanTile token indexes (x) of one K/V head (y) in one row (z), taken in strips
// of 64.
#pragma once

#include "templates/cpu/kept_keys.hpp"
#include "templates/cpu/strip.hpp"

namespace adamas_cpu {

constexpr i64 kStripsAhead = 2;  // that are fetched while one is scored

/// Selections of a K/V head that a tile is scored for: one, or all of them.
struct Selections {
  int first, count;
};

/// What the candidates of these selections take. A distance that stopped at 255 must not become one.
ADAMAS_INLINE Sums sums_of_candidates(const Args& args, const Row& row, i64 head, Selections selections) {
  if constexpr (!kMayStop) return Sums::exact;
  for (int s = selections.first; s < selections.first + selections.count; ++s) {
    const OrderKey least = key_rule(prepared_query(args, row.number, head * kGroup + s)).least;
    if (kScoreLimit - int(least) >= 255) return Sums::exact;
  }
  return Sums::stop_at_255;
}

/// Scores what the row sees of a tile and keeps it in one form, all tokens or candidates. False, where there
/// are too many candidates.
ADAMAS_FUNCTION bool keep_tile(const Args& args, const Row& row, i64 head, i64 tile, Selections selections,
                               bool whole, u32& status) {
  const i64 begin = row.start + row.first, end = row.start + row.own + 1;  // indexes that the row sees
  const i64 tile_begin = tiles_begin(row) + tile * kScanTile, tile_end = smaller(tile_begin + kScanTile, end);
  const Sums wanted = whole ? Sums::exact : sums_of_candidates(args, row, head, selections);
  u32 used[kSelectionsPerKvHead] = {};
  ADAMAS_ROLLED
  for (i64 base = larger(tile_begin, begin & ~i64(63)); base < tile_end; base += 64) {
    RowBuffer buffer;
    const Strip strip =
        locate_strip(args, row, head, base, base + kStripsAhead * 64, begin, end, buffer, status);
    OrderKey keys[kGroup][64];
    if (kKvHeadScope || selections.count > 1 || kGroup == 1) {
      score_group(args, row, head, strip, wanted, keys);
    } else {
      score_heads<1>(args, row, head, selections.first, strip, wanted, keys);
    }
    const int lane = static_cast<int>(base - tile_begin);
    const u64 seen = (base < begin ? ~u64(0) << (begin - base) : ~u64(0)) &
                     (end - base < 64 ? ~u64(0) >> (64 - (end - base)) : ~u64(0));
    for (int s = selections.first; s < selections.first + selections.count; ++s) {
      const KeptKeys kept = kept_keys(args, row.number, head * kSelectionsPerKvHead + s);
      if (whole) {
        __builtin_memcpy(kept.whole(tile) + lane, keys[s], sizeof keys[s]);
        continue;
      }
      if (used[s] + 64 >= kMostCandidates) return false;
      const OrderKey least = key_rule(prepared_query(args, row.number, head * kGroup + s)).least;
      used[s] =
          append(keys[s], lanes_that_reach(keys[s], least) & seen, lane, kept.candidates(tile), used[s]);
    }
  }
  for (int s = selections.first; s < selections.first + selections.count; ++s)
    kept_keys(args, row.number, head * kSelectionsPerKvHead + s).counts[tile] = whole ? kWholeTile : used[s];
  return true;
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_scan(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (row.visible() <= 0 || needs_no_lists(*args, row)) return;
  const i64 begin = larger(tiles_begin(row) + i64(x) * kScanTile, row.start + row.first);
  const i64 end = smaller(tiles_begin(row) + (i64(x) + 1) * kScanTile, row.start + row.own + 1);
  if (begin >= end) return;
  u32 status = 0;
  // Without a least key, and for a host that wants all scores, everything is kept.
  const Selections all{0, kSelectionsPerKvHead};
  const bool whole = args->out_scores != nullptr || kMostCandidates < 512 ||
                     key_rule(prepared_query(*args, z, i64(y) * kGroup)).least == 0;
  if (whole || !keep_tile(*args, row, y, x, all, false, status))
    keep_tile(*args, row, y, x, all, true, status);
  report(*args, status);
  count(*args, &adamas_abi::Counters::tokens_scanned, end - begin);
}
