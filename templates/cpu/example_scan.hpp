// What the generator writes for the default Spec: table indexes and entries.
//
// Only for editors and other tools that read the templates as they are. In a translation unit
// the generator's own text stands in this place; a test holds the two together.
#pragma once

#include "templates/cpu/tables.hpp"

namespace adamas_cpu {

#if defined(__AVX512VBMI__)

// A unit of three byte rows gives 4 table indexes; entries of one unit add up in a byte before sums are widened.
constexpr int kTableEntries = 64;
constexpr int kUnitRows = 3;
constexpr int kUnitTables = 4;
constexpr int kUnits = 11;
constexpr int kUnitsPerSum = 1;
constexpr int kPlanes = 1;
constexpr int kPlaneShift = 0;

// Codes that the values of an index stand for, and the largest entry that can follow from them
constexpr auto kLow = bits_of_index<kTableEntries>(0, 2);
constexpr auto kMiddle = bits_of_index<kTableEntries>(2, 2);
constexpr auto kHigh = bits_of_index<kTableEntries>(4, 2);
constexpr int kEntryMax = (largest(kLow) + largest(kMiddle) + largest(kHigh)) * (kDot ? kQueryMax : 1);
static_assert(kEntryMax == 63);

/// Table indexes of a unit's byte rows.
ADAMAS_INLINE void unit_indexes(const U8x64 (&rows)[kUnitRows], U8x64 (&index)[kUnitTables]) {
  // The lookup takes the lower six bits: three elements.
  index[0] = rows[0];
  index[1] = rows[1];
  index[2] = rows[2];
  index[3] = rows[0] >> 6 | (rows[1] >> 4 & 12) | (rows[2] >> 2 & 48);
}

/// Entries of one of a unit's tables, from the query's integers.
ADAMAS_INLINE Vec<u16, kTableEntries> unit_entries(const int* query, int unit, int table) {
  // The first three elements of a byte row each, and the fourth ones of all three.
  const int first = unit * 12 + (table < 3 ? table * 4 : 3), step = table < 3 ? 1 : 4;
  const auto entries = [query](int i, const IndexCodes<64>& codes) -> Vec<u16, 64> {
    if (i >= kHeadDim) return 0;  // beyond the last row
    return element_entries(query[i], codes, 3);
  };
  return entries(first, kLow) + entries(first + step, kMiddle) + entries(first + 2 * step, kHigh);
}

#else

// A unit of one byte row gives 2 table indexes; entries of 3 units add up in a byte before sums are widened.
constexpr int kTableEntries = 16;
constexpr int kUnitRows = 1;
constexpr int kUnitTables = 2;
constexpr int kUnits = 32;
constexpr int kUnitsPerSum = 3;
constexpr int kPlanes = 1;
constexpr int kPlaneShift = 0;

// Codes that the values of an index stand for, and the largest entry that can follow from them
constexpr auto kLow = bits_of_index<kTableEntries>(0, 2);
constexpr auto kHigh = bits_of_index<kTableEntries>(2, 2);
constexpr int kEntryMax = (largest(kLow) + largest(kHigh)) * (kDot ? kQueryMax : 1);
static_assert(kEntryMax == 42);

/// Table indexes of a unit's byte rows.
ADAMAS_INLINE void unit_indexes(const U8x64 (&rows)[kUnitRows], U8x64 (&index)[kUnitTables]) {
  index[0] = rows[0] & 15;
  index[1] = rows[0] >> 4;
}

/// Entries of one of a unit's tables, from the query's integers.
ADAMAS_INLINE Vec<u16, kTableEntries> unit_entries(const int* query, int unit, int table) {
  const int* const q = query + (unit * 2 + table) * 2;
  return element_entries(q[0], kLow, 3) + element_entries(q[1], kHigh, 3);
}

#endif

}  // namespace adamas_cpu
