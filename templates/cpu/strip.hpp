// A strip: 64 consecutive token indexes of one K/V head, and the order keys of its tokens.
//
// A byte row of 64 tokens is loaded once and looked up in the tables of up to four queries. Sums run in bytes
// for as many rows as cannot overflow with these queries, then move to 16 bits. The byte sums of `manhattan`
// stop at 255: where nobody asks for tokens as far as that, one byte sum takes all rows.
#pragma once

#include "templates/cpu/prepared.hpp"
#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

// Sums: the bounds that make byte and 16-bit arithmetic exact. Table entries are bounded for every index, so
// this holds for codes of any content, uninitialised ones included.
constexpr int kLowMax = kPlanes == 1 ? kEntryMax : (1 << kPlaneShift) - 1;
constexpr int kHighMax = kPlanes == 1 ? 0 : kEntryMax >> kPlaneShift;
constexpr int kPlaneMax = kLowMax > kHighMax ? kLowMax : kHighMax;
static_assert(kUnitsPerSum * kUnitTables * kPlaneMax <= 255, "a byte sum would overflow");
static_assert(kUnits * kUnitTables * kPlaneMax <= 65535, "a 16-bit sum would overflow");
static_assert(kUnits * kUnitRows == kRowBytes || (kTableEntries == 64 && kUnits * kUnitRows > kRowBytes &&
                                                  (kUnits - 1) * kUnitRows < kRowBytes),
              "only tables of 64 entries do without rows of the last unit");
static_assert(kPlanes == 2 || kEntryMax <= 255);

#if defined(__AVX2__) || defined(__aarch64__)
constexpr int kQueriesTogether = 4;
#else
constexpr int kQueriesTogether = 2;  // 64 tokens take four registers of 16 bytes a query
#endif

/// Codes of 64 consecutive indexes: where their byte rows lie.
struct Strip {
  static constexpr int kTiles = kTileTokens > 1 ? 64 / kTileTokens : 1;
  const u8* tile[kTiles];
  const u8* ahead[kTiles];  // the same of a strip to come: fetched while this one is scored, line for line
};

ADAMAS_INLINE U8x64 byte_row(const Strip& strip, i64 j) {
  if constexpr (Strip::kTiles == 1) {
    return load<U8x64>(strip.tile[0] + j * 64);
  } else {
    struct Parts {
      Vec<u8, kTileTokens> part[Strip::kTiles];
    } parts;
    ADAMAS_UNROLL
    for (int t = 0; t < Strip::kTiles; ++t) {
      parts.part[t] = load<Vec<u8, kTileTokens>>(strip.tile[t] + j * kTileTokens);
    }
    return bits_as<U8x64>(parts);
  }
}

/// Fetches byte row j of the strip to come into the caches. One line at a time: requests in bursts would
/// stall.
ADAMAS_INLINE void prefetch_row(const Strip& strip, i64 j) {
  ADAMAS_UNROLL
  for (int t = 0; t < Strip::kTiles; ++t)
    __builtin_prefetch(strip.ahead[t] + j * (64 / Strip::kTiles), 0, 3);
}

/// 16-bit sums of 64 tokens. Lane i of `all` holds sum(2i) + 256 * sum(2i + 1) mod 2^16, lane i of `odd`
/// sum(2i + 1): what adding byte vectors as 16-bit lanes gives, with one shift.
struct WideSums {
  U16x32 all, odd;

  ADAMAS_INLINE void add(WideSums& sums, U8x64 bytes) {
    const U16x32 pairs = bits_as<U16x32>(bytes);
    sums.all += pairs;
    sums.odd += pairs >> 8;
  }
  ADAMAS_INLINE U16x32 even(const WideSums& sums) { return sums.all - (sums.odd << 8); }
};

/// Whether sums must be exact, or distances of 255 and more may all be 255.
enum class Sums { exact, stop_at_255 };
constexpr bool kMayStop = !kDot && kPlanes == 1;

ADAMAS_INLINE U8x64 add_entries(U8x64 sum, U8x64 entries) {
  if constexpr (kMayStop) return __builtin_elementwise_add_sat(sum, entries);
  return sum + entries;
}

/// Adds units first .. end - 1 of a strip, whose entries fit in a byte together (or may stop there), to the
/// sums of kQueries queries.
template <int kQueries>
ADAMAS_INLINE void add_units(const Strip& strip, const u8* const (&prepared)[kQueries], i64 first, i64 end,
                             WideSums (&sums)[kQueries][kPlanes]) {
  U8x64 bytes[kQueries][kPlanes] = {};
  ADAMAS_ROLLED
  for (i64 unit = first; unit < end; ++unit) {
    U8x64 rows[kUnitRows], index[kUnitTables];
    ADAMAS_UNROLL
    for (int r = 0; r < kUnitRows; ++r) {
      // Where rows are missing in the last unit, entries are 0 whatever stands there.
      const i64 row = kRowBytes % kUnitRows == 0 ? unit * kUnitRows + r
                                                 : smaller(unit * kUnitRows + r, i64(kRowBytes - 1));
      rows[r] = byte_row(strip, row);
      prefetch_row(strip, row);
    }
    unit_indexes(rows, index);
    ADAMAS_UNROLL
    for (int q = 0; q < kQueries; ++q) {
      ADAMAS_UNROLL
      for (int t = 0; t < kUnitTables * kPlanes; ++t) {
        const u8* const table = prepared[q] + kTablesAt + (unit * kUnitTables * kPlanes + t) * kTableEntries;
        U8x64& sum = bytes[q][t % kPlanes];
        sum = add_entries(sum, lookup(load<Vec<u8, kTableEntries>>(table), index[t / kPlanes]));
      }
    }
  }
  ADAMAS_UNROLL
  for (int q = 0; q < kQueries; ++q) {
    ADAMAS_UNROLL
    for (int p = 0; p < kPlanes; ++p)
      WideSums::add(sums[q][p], bytes[q][p]);
  }
}

/// Even and odd tokens' 16-bit values in token order. Stored in whole registers: what reads them next does so
/// too, and would have to wait for stores of other sizes to leave the core.
ADAMAS_INLINE void interleave(U16x32 even, U16x32 odd, u16* to) {
  store(to, __builtin_shufflevector(even, odd, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40,
                                    9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47));
  store(to + 32,
        __builtin_shufflevector(even, odd, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24,
                                56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63));
}

/// Order keys of a strip's 64 tokens from the sums of one query.
ADAMAS_INLINE void write_keys(const WideSums (&sums)[kPlanes], int offset, OrderKey* keys) {
  if constexpr (sizeof(OrderKey) == 2) {
    U16x32 even = WideSums::even(sums[0]), odd = sums[0].odd;
    if constexpr (kPlanes == 2) {
      even += WideSums::even(sums[kPlanes - 1]) << kPlaneShift;
      odd += sums[kPlanes - 1].odd << kPlaneShift;
    }
    interleave(even * static_cast<u16>(kKeyFactor) + static_cast<u16>(offset),
               odd * static_cast<u16>(kKeyFactor) + static_cast<u16>(offset), reinterpret_cast<u16*>(keys));
  } else {
    u16 plane[kPlanes][64];
    for (int p = 0; p < kPlanes; ++p)
      interleave(WideSums::even(sums[p]), sums[p].odd, plane[p]);
    ADAMAS_ROLLED
    for (int i = 0; i < 64; i += 8) {
      I32x8 sum = __builtin_convertvector(load<Vec<u16, 8>>(plane[0] + i), I32x8);
      if constexpr (kPlanes == 2) {
        sum += __builtin_convertvector(load<Vec<u16, 8>>(plane[kPlanes - 1] + i), I32x8) << kPlaneShift;
      }
      store(keys + i, sum * kKeyFactor + offset);
    }
  }
}

/// Order keys [kQueries][64] of a strip.
template <int kQueries>
ADAMAS_NOINLINE void score_strip(const Strip& strip, const u8* const (&prepared)[kQueries], Sums wanted,
                                 OrderKey (*keys)[64]) {
  WideSums sums[kQueries][kPlanes] = {};
  i64 units = kUnits;
  ADAMAS_UNROLL
  for (int q = 0; q < kQueries; ++q)
    units = smaller(units, i64(load<KeyRule>(prepared[q]).units));
  if (kMayStop && wanted == Sums::stop_at_255) units = kUnits;
  ADAMAS_ROLLED
  for (i64 unit = 0; unit < kUnits; unit += units)
    add_units<kQueries>(strip, prepared, unit, smaller(unit + units, i64(kUnits)), sums);
  ADAMAS_UNROLL
  for (int q = 0; q < kQueries; ++q)
    write_keys(sums[q], load<KeyRule>(prepared[q]).offset, keys[q]);
}

/// Order keys of the query heads first .. first + kQueries - 1 of K/V head `head`.
template <int kQueries>
ADAMAS_INLINE void score_heads(const Args& args, const Row& row, i64 head, int first, const Strip& strip,
                               Sums wanted, OrderKey (*keys)[64]) {
  const u8* prepared[kQueries];
  for (int q = 0; q < kQueries; ++q)
    prepared[q] = prepared_query(args, row.number, head * kGroup + first + q);
  score_strip<kQueries>(strip, prepared, wanted, keys + first);
}

/// Plain code rows (pages that no tile divides) of 64 tokens, as byte rows.
using RowBuffer = u8[kTileTokens > 1 ? 1 : kRowBytes * 64];

ADAMAS_FUNCTION void gather_rows(const u8* const (&rows)[64], u8* to) {
  ADAMAS_ROLLED
  for (int t = 0; t < 64; t += 16) {
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; j += 16) {
      U8x16 block[16];
      if (j + 16 <= kRowBytes) {
        ADAMAS_UNROLL
        for (int i = 0; i < 16; ++i)
          block[i] = load<U8x16>(rows[t + i] + j);
      } else {
        ADAMAS_UNROLL
        for (int i = 0; i < 16; ++i) {
          block[i] = 0;
          __builtin_memcpy(&block[i], rows[t + i] + j, kRowBytes % 16);
        }
      }
      transpose(block);
      for (int i = 0; i < smaller(16, kRowBytes - j); ++i)
        store(to + (j + i) * 64 + t, block[i]);
    }
  }
}

/// Locates the codes of indexes base .. base + 63, and of those that start at `ahead` and are to be fetched.
/// Indexes outside begin..end-1 (what the row sees) may lie beyond the sequence's table: their lanes repeat
/// the nearest one inside, and their keys are not used.
ADAMAS_FUNCTION Strip locate_strip(const Args& args, const Row& row, i64 head, i64 base, i64 ahead, i64 begin,
                                   i64 end, RowBuffer& buffer, u32& status) {
  Strip strip;
  const auto clamped = [begin, end](i64 index) { return smaller(larger(index, begin), end - 1); };
  if constexpr (kTileTokens > 1) {
    const auto tile_of = [&](i64 index) {
      Slot slot = slot_of_index(args, row, clamped(index), status);
      slot.token -= slot.token % kTileTokens;
      return code_bytes(args, slot, head);
    };
    ADAMAS_UNROLL
    for (int t = 0; t < Strip::kTiles; ++t) {
      strip.tile[t] = tile_of(base + t * kTileTokens);
      strip.ahead[t] = tile_of(ahead + t * kTileTokens);
    }
  } else {
    const u8* rows[64];
    ADAMAS_ROLLED
    for (int i = 0; i < 64; ++i)
      rows[i] = code_bytes(args, slot_of_index(args, row, clamped(base + i), status), head);
    gather_rows(rows, buffer);
    strip.tile[0] = strip.ahead[0] = buffer;
  }
  return strip;
}

/// Order keys [selection][64] of a strip for every selection of a K/V head.
ADAMAS_FUNCTION void score_group(const Args& args, const Row& row, i64 head, const Strip& strip, Sums wanted,
                                 OrderKey (*keys)[64]) {
  constexpr int kRest = kGroup % kQueriesTogether;
  ADAMAS_ROLLED
  for (int first = 0; first + kQueriesTogether <= kGroup; first += kQueriesTogether)
    score_heads<kQueriesTogether>(args, row, head, first, strip, wanted, keys);
  if constexpr (kRest > 0) score_heads<kRest>(args, row, head, kGroup - kRest, strip, wanted, keys);
  if constexpr (kKvHeadScope) {  // the best of the group's query heads
    for (int q = 1; q < kGroup; ++q) {
      ADAMAS_ROLLED
      for (int i = 0; i < 64; i += 8) {
        using Keys8 = Vec<OrderKey, 8>;
        const Keys8 best = load<Keys8>(keys[0] + i), other = load<Keys8>(keys[q] + i);
        store(keys[0] + i, other > best ? other : best);
      }
    }
  }
}

}  // namespace adamas_cpu
