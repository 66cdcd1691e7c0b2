// What the generator writes for the default Spec: table indexes and entries.
//
// Only for editors and other tools that read the templates as they are. In a translation unit
// the generator's own text stands in this place; a test holds the two together.
#pragma once

#include "templates/cpu/tables.hpp"

namespace adamas_cpu {

// A unit of one byte row gives 2 table indexes; entries of 3 units add up in a byte before sums are widened.
constexpr int kUnitRows = 1;
constexpr int kUnitTables = 2;
constexpr int kUnits = kRowBytes / kUnitRows;
constexpr int kUnitsPerSum = 3;
constexpr int kPlanes = 1;
constexpr int kPlaneShift = 0;

// Codes that the values of an index stand for, and the largest entry that can follow from them
constexpr IndexCodes kLow{{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}};
constexpr IndexCodes kHigh{{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3}};
constexpr int kEntryMax = (largest(kLow) + largest(kHigh)) * (kDot ? kQueryMax : 1);
static_assert(kEntryMax == 42);

/// Table indexes of a unit's byte rows.
ADAMAS_INLINE void unit_indexes(const U8x64 (&rows)[kUnitRows], U8x64 (&index)[kUnitTables]) {
  index[0] = rows[0] & 15;
  index[1] = rows[0] >> 4;
}

/// Entries of one of a unit's tables, from the query's integers.
ADAMAS_INLINE U16x16 unit_entries(const int* query, int unit, int table) {
  const int* const q = query + (unit * 2 + table) * 2;
  return element_entries(q[0], kLow, 3) + element_entries(q[1], kHigh, 3);
}

}  // namespace adamas_cpu
