// What the scan leaves for select: of every selection and scan tile, the tokens that may be among the best.
//
// A tile is kept in one of two forms. Most hold a handful of candidates: the keys that reach the selection's
// least key, each with its token's place in the tile. A tile that has too many of them, as where many tokens
// tie, holds the keys of all its tokens instead.
#pragma once

#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

struct Candidate {
  OrderKey key;
  OrderKey lane;  // token index - first index of the tile
};
static_assert(sizeof(OrderKey) > 2 || kScanTile <= 65536);

constexpr int kMostCandidates = kScanTile * int(sizeof(OrderKey)) / int(sizeof(Candidate));
constexpr int kTileStride =
    kScanTile + 64;  // in keys: tiles 4 KiB apart would compete for the same lines of a cache
constexpr u32 kWholeTile = 0xffffffff;  // in place of the number of candidates

/// First index of tile 0 of a row: tiles lie on multiples of 64 indexes from the one that holds position 0,
/// so that strips are whole code tiles.
ADAMAS_INLINE i64 tiles_begin(const Row& row) { return row.start & ~i64(63); }

/// The tile of an index that the row sees.
ADAMAS_INLINE i64 tile_of_index(const Row& row, i64 index) {
  return static_cast<i64>(static_cast<u64>(index - tiles_begin(row)) / kScanTile);
}

/// The tiles of one selection, in the workspace: [tiles][kTileStride] order keys or candidates, then counts
/// [tiles].
struct KeptKeys {
  OrderKey* keys;
  u32* counts;

  OrderKey* whole(i64 tile) const { return keys + tile * kTileStride; }
  Candidate* candidates(i64 tile) const { return reinterpret_cast<Candidate*>(whole(tile)); }
};

ADAMAS_INLINE KeptKeys kept_keys(const Args& args, i64 row, i64 selection) {
  const i64 selections = args.kv_heads * kSelectionsPerKvHead;
  OrderKey* const keys =
      reinterpret_cast<OrderKey*>(args.keys_of_scores) + (row * selections + selection) * args.score_stride;
  return {keys, reinterpret_cast<u32*>(keys + ceil_div(args.max_tokens + 63, kScanTile) * kTileStride)};
}

/// Lanes of a mask of 64 keys that reach `least`.
ADAMAS_INLINE u64 lanes_that_reach(const OrderKey* keys, OrderKey least) {
  using Keys32 = Vec<OrderKey, 32>;
  const Keys32 bound = least;
  return mask_bits32(load<Keys32>(keys) >= bound) | u64(mask_bits32(load<Keys32>(keys + 32) >= bound)) << 32;
}

/// Appends the keys of `hits` (lanes of a strip that begins at `lane` of its tile) to candidates. The first
/// three are written whether they exist or not: a strip has one or two as a rule, and a branch on that would
/// be guessed wrong. There must be room for 64, and one more.
ADAMAS_INLINE u32 append(const OrderKey* keys, u64 hits, int lane, Candidate* candidates, u32 used) {
  constexpr int kUnconditional = 3;
  ADAMAS_UNROLL
  for (int i = 0; i < kUnconditional; ++i) {
    const int hit = __builtin_ctzll(hits | u64(1) << 63);
    candidates[used] = {keys[hit], static_cast<OrderKey>(lane + hit)};
    used += hits != 0;
    hits &= hits - 1;
  }
  ADAMAS_ROLLED
  for (; hits != 0; hits &= hits - 1) {
    const int hit = __builtin_ctzll(hits);
    candidates[used++] = {keys[hit], static_cast<OrderKey>(lane + hit)};
  }
  return used;
}

/// Calls use(position, key) for kept keys of positions begin .. end - 1, in ascending order: for all within
/// low .. low + span, and for some others. Keys below the selection's least may be missing.
template <class Use>
ADAMAS_INLINE void for_kept(const KeptKeys& kept, const Row& row, i64 begin, i64 end, u32 low, u32 span,
                            const Use& use) {
  constexpr int kTogether = 32;
  constexpr i64 kTilesAhead = 4;
  using Keys = Vec<OrderKey, kTogether>;
  if (begin >= end) return;
  const i64 last = tile_of_index(row, row.start + end - 1);
  ADAMAS_ROLLED
  for (i64 tile = tile_of_index(row, row.start + begin); tile <= last; ++tile) {
    const i64 first = tiles_begin(row) - row.start + tile * kScanTile;  // position of lane 0
    __builtin_prefetch(kept.candidates(smaller(tile + kTilesAhead, last)));
    if (kept.counts[tile] != kWholeTile) {
      const Candidate* const candidates = kept.candidates(tile);
      const u32 n = smaller(kept.counts[tile], u32(kMostCandidates));
      ADAMAS_ROLLED
      for (u32 i = 0; i < n; ++i) {
        const i64 position = first + candidates[i].lane;
        if (position >= begin && position < end) use(position, u32(candidates[i].key));
      }
      continue;
    }
    const OrderKey* const keys = kept.whole(tile);
    const Keys base = static_cast<OrderKey>(low), width = static_cast<OrderKey>(span);
    i64 lane = larger(begin - first, i64(0));
    const i64 lanes = smaller(end - first, i64(kScanTile));
    ADAMAS_ROLLED
    for (; lane + kTogether <= lanes; lane += kTogether) {
      u32 hits = mask_bits32(load<Keys>(keys + lane) - base <= width);
      ADAMAS_ROLLED
      for (; hits != 0; hits &= hits - 1) {
        const i64 at = lane + __builtin_ctz(hits);
        use(first + at, u32(keys[at]));
      }
    }
    ADAMAS_ROLLED
    for (; lane < lanes; ++lane) {
      if (u32(keys[lane]) - low <= span) use(first + lane, u32(keys[lane]));
    }
  }
}

}  // namespace adamas_cpu
