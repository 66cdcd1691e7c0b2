// prepare_query: queries -> integers (dot) or codes (manhattan) -> scan tables -> the least order key that
// the scan is to keep.
//
// Work item: the query heads of one K/V head (y) in one row (z), rotated eight heads at a time.
#pragma once

#include "templates/cpu/example_codes.hpp"
#include "templates/cpu/guess.hpp"
#include "templates/cpu/hadamard.hpp"
#include "templates/cpu/prepared.hpp"
#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

/// In place: rotated queries -> integers of `dot`, all zero where the query is zero or has an element that is
/// not finite. One true division an element: a reciprocal would change integers.
ADAMAS_FUNCTION void quantize(F32x8* rotated, I32x8* integers) {
  U32x8 most = 0;  // magnitudes order like their bits
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i) {
    const U32x8 magnitude = bits_as<U32x8>(rotated[i]) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  const F32x8 step = bits_as<F32x8>(most) / float(kQueryMax);
  const I32x8 usable = (most < 0x7f800000) & (step != 0.0f);
  const F32x8 divisor = usable ? step : F32x8(1.0f);
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i) {
    const F32x8 ratio = usable ? rotated[i] / divisor : F32x8(0.0f);
    const F32x8 rounded = __builtin_elementwise_roundeven(ratio);
    const I32x8 integer = __builtin_convertvector(rounded, I32x8);
    const I32x8 lowest = -kQueryMax, highest = kQueryMax;
    integers[i] = __builtin_elementwise_min(__builtin_elementwise_max(integer, lowest), highest);
  }
}

/// Rotated queries -> codes of `manhattan`, all zero where an element is not finite.
ADAMAS_FUNCTION void bucketize(const F32x8* rotated, const float* thresholds, I32x8* codes) {
  U32x8 most = 0;
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i) {
    const U32x8 magnitude = bits_as<U32x8>(rotated[i]) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
    codes[i] = bucket(rotated[i], thresholds);
  }
  const I32x8 finite = most < 0x7f800000;
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i)
    codes[i] &= finite;
}

/// How many units may add up in bytes when their entries are at most these: as few and as equal groups as can
/// be.
ADAMAS_FUNCTION int units_of_byte_sums(const u16* most) {
  constexpr int kByteMax = 255;
  int all = 0;
  ADAMAS_ROLLED
  for (int unit = 0; unit < kUnits; ++unit)
    all += most[unit];
  ADAMAS_ROLLED
  for (int groups = larger(1, all / kByteMax);; ++groups) {
    const int units = (kUnits + groups - 1) / groups;
    if (units <= kUnitsPerSum) return kUnitsPerSum;
    int largest_sum = 0;
    ADAMAS_ROLLED
    for (int first = 0; first < kUnits; first += units) {
      int sum = 0;
      ADAMAS_ROLLED
      for (int unit = first; unit < smaller(first + units, kUnits); ++unit)
        sum += most[unit];
      largest_sum = larger(largest_sum, sum);
    }
    if (largest_sum <= kByteMax) return units;
  }
}

/// Tables and constants of one query.
ADAMAS_FUNCTION void write_tables(const int* query, u8* prepared) {
  u8* to = prepared + kTablesAt;
  u16 most[kUnits];  // that a unit adds to the sum of a plane
  ADAMAS_ROLLED
  for (int unit = 0; unit < kUnits; ++unit) {
    int low_sum = 0, high_sum = 0;
    ADAMAS_ROLLED
    for (int table = 0; table < kUnitTables; ++table) {
      using Entries = Vec<u16, kTableEntries>;
      using Bytes = Vec<u8, kTableEntries>;
      const Entries entries = unit_entries(query, unit, table);
      const Entries low = kPlanes == 1 ? entries : entries & ((1 << kPlaneShift) - 1);
      store(to, __builtin_convertvector(low, Bytes));
      to += kTableEntries;
      low_sum += __builtin_reduce_max(low);
      if constexpr (kPlanes == 2) {
        const Entries high = entries >> kPlaneShift;
        store(to, __builtin_convertvector(high, Bytes));
        to += kTableEntries;
        high_sum += __builtin_reduce_max(high);
      }
    }
    most[unit] = static_cast<u16>(larger(low_sum, high_sum));
  }
  key_rule(prepared).units = units_of_byte_sums(most);
  int magnitudes = 0;
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i)
    magnitudes += query[i] < 0 ? -query[i] : query[i];
  key_rule(prepared).offset = key_offset(magnitudes);
}

/// Prepares query heads first_head .. first_head + used - 1, all of K/V head `head`.
ADAMAS_NOINLINE void prepare_lanes(const Args& args, i64 row, i64 head, i64 first_head, int used) {
  const Query::Raw* queries[8];
  for (int lane = 0; lane < 8; ++lane) {
    queries[lane] = static_cast<const Query::Raw*>(args.query) + row * args.query_row_stride +
                    (first_head + (lane < used ? lane : 0)) * args.query_head_stride;
  }
  F32x8 rotated[kHeadDim];
  load_rows<Query>(queries, rotated);
  rotate(rotated);

  I32x8 integers[kHeadDim];
  if constexpr (kDot) {
    quantize(rotated, integers);
  } else {
    bucketize(rotated, args.query_thresholds + head * (kBuckets - 1), integers);
  }

  for (int lane = 0; lane < used; ++lane) {
    int query[kHeadDim];
    const int* const column = reinterpret_cast<const int*>(integers) + lane;
    ADAMAS_ROLLED
    for (int i = 0; i < kHeadDim; ++i)
      query[i] = column[8 * i];
    write_tables(query, prepared_query(args, row, first_head + lane));
    if (args.query_codes == nullptr) continue;
    signed char* const out = args.query_codes + (row * args.kv_heads * kGroup + first_head + lane) * kHeadDim;
    ADAMAS_ROLLED
    for (int i = 0; i < kHeadDim; ++i)
      out[i] = static_cast<signed char>(query[i]);
  }
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_prepare_query(const adamas_abi::Args* args, unsigned, unsigned y, unsigned z) {
  using namespace adamas_cpu;
  const Row row = row_of(*args, z);
  if (row.own < 0 && args->query_codes == nullptr) return;
  ADAMAS_ROLLED
  for (int member = 0; member < kGroup; member += 8) {
    prepare_lanes(*args, z, y, i64(y) * kGroup + member, smaller(kGroup - member, 8));
  }
  if (row.visible() > 0 && !needs_no_lists(*args, row)) guess_least_keys(*args, row, y);
}
