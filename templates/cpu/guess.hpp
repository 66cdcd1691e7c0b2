// guess: a sample of a row's strips -> the least order key that is worth keeping.
//
// A little more than the wanted number of tokens reach it, so that the scan can leave nearly all of them out.
// Only speed depends on the guess: where too few tokens reach it, select scores them all again.
#pragma once

#include "templates/cpu/kept_keys.hpp"
#include "templates/cpu/open_range.hpp"
#include "templates/cpu/strip.hpp"

namespace adamas_cpu {

constexpr i64 kLeastGuessed = 2048;  // tokens; fewer are all kept
constexpr i64 kMostSampled = 32;     // strips

/// Keys of n (a multiple of 64, below 2^16) that reach `least`.
ADAMAS_FUNCTION int keys_that_reach(const OrderKey* keys, int n, OrderKey least) {
  using Keys32 = Vec<OrderKey, 32>;
  const Keys32 bound = least;
  Keys32 found = 0;
  ADAMAS_ROLLED
  for (int i = 0; i < n; i += 32)
    found -= bits_as<Keys32>(load<Keys32>(keys + i) >= bound);
  return __builtin_reduce_add(found);
}

/// A key that at least `wanted` of the n keys reach, and not many more unless they tie.
ADAMAS_FUNCTION OrderKey key_of_rank(const OrderKey* keys, int n, int wanted) {
  u32 low = 0, high = kKeyLimit + 1;  // enough keys reach low, too few high
  while (high - low > 1) {
    const u32 middle = low + (high - low) / 2;
    const int reach = keys_that_reach(keys, n, static_cast<OrderKey>(middle));
    (reach >= wanted ? low : high) = middle;
    if (reach >= wanted && reach <= wanted + wanted / 8) break;
  }
  return static_cast<OrderKey>(low);
}

/// Sets the least key of every selection of a K/V head.
ADAMAS_FUNCTION void guess_least_keys(const Args& args, const Row& row, i64 head) {
  const OpenRange open = open_range(args, row);
  const i64 first = ceil_div(row.start + open.begin, 64), strips = (row.start + open.end) / 64 - first;
  const i64 sampled = smaller(larger(strips / 16, i64(4)), kMostSampled), keys = sampled * 64;
  // What the sample holds of the wanted tokens varies like a Poisson variable (more, where neighbours are
  // alike): four deviations on top.
  const i64 expected = ceil_div(open.wanted * keys, larger(open.size(), i64(1)));
  i64 deviation = 1;
  while (deviation * deviation < expected)
    ++deviation;
  const i64 enough = expected + 4 * deviation + 4;

  const bool pays = open.size() >= kLeastGuessed && open.wanted > 0 && enough < keys && strips >= sampled;
  if (pays) {
    u32 random = 0x9e3779b9u, ignored = 0;
    // One strip of every share, not always the same one: a host's data may have a period.
    const auto base_of = [&](i64 i) {
      random = random * 1664525u + 1013904223u;
      const i64 begin = i * strips / sampled, share = (i + 1) * strips / sampled - begin;
      return (first + begin + i64(random >> 8) % share) * 64;
    };
    i64 next = base_of(0);
    ADAMAS_ROLLED
    for (i64 i = 0; i < sampled; ++i) {
      const i64 base = next;
      if (i + 1 < sampled) next = base_of(i + 1);
      RowBuffer buffer;
      const Strip strip = locate_strip(args, row, head, base, next, row.start + row.first,
                                       row.start + row.own + 1, buffer, ignored);
      OrderKey scored[kGroup][64];
      score_group(args, row, head, strip, Sums::exact, scored);
      for (int s = 0; s < kSelectionsPerKvHead; ++s) {
        OrderKey* const to = kept_keys(args, row.number, head * kSelectionsPerKvHead + s).keys + i * 64;
        __builtin_memcpy(to, scored[s], sizeof scored[s]);
      }
    }
  }
  for (int s = 0; s < kSelectionsPerKvHead; ++s) {
    const OrderKey* const sample = kept_keys(args, row.number, head * kSelectionsPerKvHead + s).keys;
    key_rule(prepared_query(args, row.number, head * kGroup + s)).least =
        pays ? key_of_rank(sample, static_cast<int>(keys), static_cast<int>(enough)) : OrderKey(0);
  }
}

}  // namespace adamas_cpu
