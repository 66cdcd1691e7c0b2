// select: order keys -> the best positions, ascending.
//
// Work item: one selection (y) of one row (z). Linear in the visible tokens and exact. Forced tokens are a
// prefix and a suffix of what the row sees; between them the cut is found by counting keys, never by sorting:
//   1. a histogram of a sample guesses a key that a little more than the wanted number of tokens reach,
//   2. one vector pass counts the keys above the guess by value (a second one refines the bin where values
//   are many),
//   3. one vector pass writes the positions above the cut, and of those that tie at the cut the latest.
// A guess that was too high is replaced by zero, and then every key is counted.
#pragma once

#include "templates/cpu/rows.hpp"
#include "templates/cpu/scan.hpp"

namespace adamas_cpu {

constexpr int kBins = 4096;
constexpr int kGroupKeys = 32;  // keys that one comparison takes

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

/// Calls use(i) for every key of keys[0..n-1] within low..low + span, in ascending order.
template <class Use>
ADAMAS_INLINE void for_keys(const OrderKey* keys, i64 n, u32 low, u32 span, Use use) {
  using Keys = Vec<OrderKey, kGroupKeys>;
  const Keys base = static_cast<OrderKey>(low), width = static_cast<OrderKey>(span);
  i64 i = 0;
  ADAMAS_ROLLED
  for (; i + kGroupKeys <= n; i += kGroupKeys) {
    u32 hits = mask_bits32(load<Keys>(keys + i) - base <= width);
    ADAMAS_ROLLED
    for (; hits != 0; hits &= hits - 1)
      use(i + __builtin_ctz(hits));
  }
  ADAMAS_ROLLED
  for (; i < n; ++i) {
    if (u32(keys[i]) - low <= span) use(i);
  }
}

/// The highest bin such that it and those above hold at least `wanted`; `above` becomes what those above
/// hold.
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

/// A key that probably a little more than `wanted` of the n keys reach; 0 where a sample would not pay.
ADAMAS_FUNCTION u32 guess_key(const OrderKey* keys, i64 n, i64 wanted, u32* bins) {
  constexpr int kShift = bin_shift(kKeyLimit);
  if (n < 2048) return 0;
  const i64 step = kGroupKeys * larger(i64(8), n / 4096);
  clear(bins, (kKeyLimit >> kShift) + 1);
  i64 seen = 0;
  ADAMAS_ROLLED
  for (i64 i = 0; i + kGroupKeys <= n; i += step, seen += kGroupKeys) {
    ADAMAS_ROLLED
    for (int k = 0; k < kGroupKeys; ++k)
      ++bins[smaller(u32(keys[i + k]), u32(kKeyLimit)) >> kShift];
  }
  // The sample's count varies like a Poisson variable (more, where neighbours are alike): three deviations on
  // top.
  const i64 expected = ceil_div(wanted * seen, n);
  i64 deviation = 1;
  while (deviation * deviation < expected)
    ++deviation;
  const i64 enough = expected + 3 * deviation + 3;
  if (enough >= seen) return 0;
  i64 above;
  return static_cast<u32>(bin_of_rank(bins, kKeyLimit >> kShift, enough, above)) << kShift;
}

/// The cut that leaves `wanted` (1..n-1) of n keys.
ADAMAS_FUNCTION Cut find_cut(const OrderKey* keys, i64 n, i64 wanted) {
  u32 bins[kBins];
  u32 low = guess_key(keys, n, wanted, bins);
  u32 span = kKeyLimit - low;
  for (;;) {
    const int shift = bin_shift(span);
    const int top = static_cast<int>(span >> shift);
    clear(bins, top + 1);
    i64 counted = 0;
    for_keys(keys, n, low, span, [&](i64 i) {
      ++bins[(keys[i] - low) >> shift];
      ++counted;
    });
    if (counted < wanted) {
      if (low == 0) return {0, 0};  // keys beyond the limit: not what scan writes; take what comes first
      low = 0;
      span = kKeyLimit;
      continue;
    }
    i64 above;
    const int bin = bin_of_rank(bins, top, wanted, above);
    if (shift == 0) return {low + static_cast<u32>(bin), above + bins[bin] - wanted};
    // Many values share the bin: count again within it, for the rest.
    wanted -= above;
    low += static_cast<u32>(bin) << shift;
    span = (1u << shift) - 1;
  }
}

/// Positions as they are chosen, never more than the budget.
struct Chosen {
  int* positions;
  i64 limit;
  i64 used = 0;

  void add(i64 position) {
    if (used < limit) positions[used++] = static_cast<int>(position);
  }
};

/// Chooses min(budget, visible) positions of a row from its order keys (indexed by position).
ADAMAS_FUNCTION i64 choose(const Row& row, i64 budget, const OrderKey* keys, int* positions) {
  Chosen chosen{positions, smaller(budget, row.visible())};
  const i64 recent_begin = larger(row.first, row.own + 1 - kRecent);
  const i64 sink_end = smaller(larger(row.first, i64(kSink)), recent_begin);
  const i64 recent = smaller(row.own + 1 - recent_begin, chosen.limit);
  const i64 sink = smaller(sink_end - row.first, chosen.limit - recent);
  const i64 n = recent_begin - sink_end;
  const i64 wanted = smaller(n, chosen.limit - recent - sink);

  ADAMAS_ROLLED
  for (i64 p = sink_end - sink; p < sink_end; ++p)
    chosen.add(p);
  if (wanted == n) {
    ADAMAS_ROLLED
    for (i64 p = sink_end; p < recent_begin; ++p)
      chosen.add(p);
  } else if (wanted > 0) {
    Cut cut = find_cut(keys + sink_end, n, wanted);
    const OrderKey* const open = keys + sink_end;
    for_keys(open, n, cut.key, kKeyLimit - cut.key, [&](i64 i) {
      if (open[i] == cut.key && cut.left_out > 0) {
        --cut.left_out;
      } else {
        chosen.add(sink_end + i);
      }
    });
  }
  ADAMAS_ROLLED
  for (i64 p = row.own + 1 - recent; p <= row.own; ++p)
    chosen.add(p);
  return chosen.used;
}

/// Raw scores of all the sequence's positions: INT_MIN where the row does not see.
ADAMAS_FUNCTION void write_scores(const Row& row, const OrderKey* keys, int* scores) {
  constexpr int kUnseen = -2147483647 - 1;
  ADAMAS_ROLLED
  for (i64 p = 0; p < row.length; ++p) {
    const bool seen = p >= row.first && p <= row.own;
    scores[p] = !seen  ? kUnseen
                : kDot ? static_cast<int>(keys[p]) - kScoreLimit
                       : kScoreLimit - static_cast<int>(keys[p]);
  }
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_select(const adamas_abi::Args* args, unsigned, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (needs_no_lists(*args, row)) return;
  const i64 selection = row.number * args->kv_heads * kSelectionsPerKvHead + y;
  const OrderKey* const keys = order_keys(*args, row.number, y);
  int* const positions = args->positions + selection * kBudget;

  const i64 chosen = choose(row, row_budget(*args, row), keys, positions);
  ADAMAS_ROLLED
  for (i64 i = chosen; i < kBudget; ++i)
    positions[i] = -1;
  args->counts[selection] = static_cast<int>(chosen);
  if (args->out == nullptr) count_row(*args, row, kGroup / kSelectionsPerKvHead);  // select alone, no merge

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
  if (args->out_scores != nullptr) write_scores(row, keys, args->out_scores + selection * args->max_tokens);
}
