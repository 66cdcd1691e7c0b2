// Straight-line code for one bucket count: comparisons, packing, table indexes and table entries.
//
// A code row is a sequence of nibbles, two a byte, the lower first. A nibble is an index into a table of 16
// entries:
//   buckets=2   four elements, one bit each           buckets=4   two elements, two bits each
//   buckets=16  one element, four bits
//   buckets=8   three bits of one element; the fourth bits of three neighbouring nibbles hold a fourth
//   element. That
//               packs three bits an element (a nibble each would cost a third more), and a dot product never
//               has to assemble the fourth element: its bits add up on their own.
// With tables of 64 entries (AVX-512 VBMI, buckets=4) three elements of a byte are an index, and what is left
// of three bytes is another.
#include "codegen/cpu_layout.hpp"
#include "codegen/cpu_source.hpp"
#include "codegen/format.hpp"

namespace adamas::codegen {
namespace {

std::string bucket_text(int buckets) {
  std::string sum;
  for (int t = 0; t < buckets - 1; ++t) {
    if (t > 0) sum += t % 6 == 0 ? " +\n           " : " + ";
    sum += fmt::format("(y > t[{}])", t);
  }
  return "/// Code of a rotated element: how many of the thresholds lie strictly below it. A comparison\n"
         "/// gives -1 for true, and 0 for NaN.\n"
         "ADAMAS_INLINE I32x8 bucket(F32x8 y, const float* t) {\n"
         "  return -(" +
         sum + ");\n}\n\n";
}

struct PackingText {
  std::string_view pack;    ///< body of pack_nibble(codes c, n)
  std::string_view unpack;  ///< body of code_of(row, i)
};

PackingText packing_text(int buckets) {
  switch (buckets) {
    case 2:
      return {"  return c[4 * n] | c[4 * n + 1] << 1 | c[4 * n + 2] << 2 | c[4 * n + 3] << 3;\n",
              "  return nibble_of(row, i / 4) >> i % 4 & 1;\n"};
    case 4:
      return {"  return c[2 * n] | c[2 * n + 1] << 2;\n",
              "  return nibble_of(row, i / 2) >> i % 2 * 2 & 3;\n"};
    case 8:
      return {
          "  const int four = n / 3 * 4, k = n % 3;\n"
          "  return c[four + k] | (c[four + 3] >> k & 1) << 3;\n",
          "  const int n = i / 4 * 3;\n"
          "  if (i % 4 < 3) return nibble_of(row, n + i % 4) & 7;\n"
          "  return nibble_of(row, n) >> 3 | nibble_of(row, n + 1) >> 3 << 1 | nibble_of(row, n + 2) >> 3 << "
          "2;\n"};
    default:
      return {"  return c[n];\n", "  return nibble_of(row, i);\n"};
  }
}

/// The codes that the values of an index stand for: bits shift .. shift + width - 1 of it.
std::string index_codes(std::string_view name, int shift, int width) {
  return fmt::format("constexpr auto {} = bits_of_index<kTableEntries>({}, {});\n", name, shift, width);
}

/// Body of unit_entries(query q, unit, table), and the tables it uses.
struct EntriesText {
  std::string codes;
  std::string bound;  ///< expression for the largest entry
  std::string body;
};

EntriesText entries_text(const Spec& spec) {
  switch (spec.buckets) {
    case 2:
      return {index_codes("kBit0", 0, 1) + index_codes("kBit1", 1, 1) + index_codes("kBit2", 2, 1) +
                  index_codes("kBit3", 3, 1),
              "largest(kBit0) + largest(kBit1) + largest(kBit2) + largest(kBit3)",
              "  const int* const q = query + (unit * 2 + table) * 4;\n"
              "  return element_entries(q[0], kBit0, 1) + element_entries(q[1], kBit1, 1) +\n"
              "         element_entries(q[2], kBit2, 1) + element_entries(q[3], kBit3, 1);\n"};
    case 4:
      return {index_codes("kLow", 0, 2) + index_codes("kHigh", 2, 2), "largest(kLow) + largest(kHigh)",
              "  const int* const q = query + (unit * 2 + table) * 2;\n"
              "  return element_entries(q[0], kLow, 3) + element_entries(q[1], kHigh, 3);\n"};
    case 8:
      if (spec.estimator == Estimator::dot) {
        return {index_codes("kLow", 0, 3) + index_codes("kSpareBit", 3, 1),
                "largest(kLow) + (largest(kSpareBit) << 2)",
                "  const int n = unit * 2 + table, k = n % 3;\n"
                "  const int* const q = query + n / 3 * 4;\n"
                "  return element_entries(q[k], kLow, 7) + (element_entries(q[3], kSpareBit, 1) << k);\n"};
      }
      return {index_codes("kLow", 0, 3), "largest(kLow)",
              "  const int* const q = query + unit * 8;\n"
              "  const int i = table < 6 ? table / 3 * 4 + table % 3 : (table - 6) * 4 + 3;\n"
              "  return element_entries(q[i], kLow, 7);\n"};
    default:
      return {index_codes("kWhole", 0, 4), "largest(kWhole)",
              "  return element_entries(query[unit * 2 + table], kWhole, 15);\n"};
  }
}

/// The same for tables of 64 entries, of buckets=4.
EntriesText wide_entries_text() {
  return {
      index_codes("kLow", 0, 2) + index_codes("kMiddle", 2, 2) + index_codes("kHigh", 4, 2),
      "largest(kLow) + largest(kMiddle) + largest(kHigh)",
      "  // The first three elements of a byte row each, and the fourth ones of all three.\n"
      "  const int first = unit * 12 + (table < 3 ? table * 4 : 3), step = table < 3 ? 1 : 4;\n"
      "  const auto entries = [query](int i, const IndexCodes<64>& codes) -> Vec<u16, 64> {\n"
      "    if (i >= kHeadDim) return 0;  // beyond the last row\n"
      "    return element_entries(query[i], codes, 3);\n"
      "  };\n"
      "  return entries(first, kLow) + entries(first + step, kMiddle) + entries(first + 2 * step, kHigh);\n"};
}

/// Body of unit_indexes.
std::string indexes_text(const CpuScanLayout& scan) {
  if (scan.table_entries == 64) {
    return "  // The lookup takes the lower six bits: three elements.\n"
           "  index[0] = rows[0];\n"
           "  index[1] = rows[1];\n"
           "  index[2] = rows[2];\n"
           "  index[3] = rows[0] >> 6 | (rows[1] >> 4 & 12) | (rows[2] >> 2 & 48);\n";
  }
  std::string text;
  for (int r = 0; r < scan.unit_rows; ++r) {
    text +=
        fmt::format("  index[{}] = rows[{}] & 15;\n  index[{}] = rows[{}] >> 4;\n", 2 * r, r, 2 * r + 1, r);
  }
  if (scan.unit_tables == 8) {
    for (int four = 0; four < 2; ++four) {
      const int n = 3 * four;
      text +=
          fmt::format("  index[{}] = (index[{}] & 8) >> 3 | (index[{}] & 8) >> 2 | (index[{}] & 8) >> 1;\n",
                      6 + four, n, n + 1, n + 2);
    }
  }
  return text;
}

std::string scan_text(const CpuScanLayout& scan, const EntriesText& entries) {
  std::string text = fmt::format(
      "// A unit of {} gives {} table indexes; entries of {} add up in a byte before sums are widened.\n"
      "constexpr int kTableEntries = {};\n"
      "constexpr int kUnitRows = {};\n"
      "constexpr int kUnitTables = {};\n"
      "constexpr int kUnits = {};\n"
      "constexpr int kUnitsPerSum = {};\n"
      "constexpr int kPlanes = {};{}\n"
      "constexpr int kPlaneShift = {};\n\n",
      scan.unit_rows == 1 ? "one byte row" : "three byte rows", scan.unit_tables,
      scan.units_per_sum == 1 ? "one unit" : fmt::format("{} units", scan.units_per_sum), scan.table_entries,
      scan.unit_rows, scan.unit_tables, scan.units, scan.units_per_sum, scan.planes,
      scan.planes == 1 ? "" : "  // entries exceed a byte: low bits and high bits have tables of their own",
      scan.plane_shift);
  text += "// Codes that the values of an index stand for, and the largest entry that can follow from them\n";
  text += entries.codes;
  text += fmt::format(
      "constexpr int kEntryMax = ({}) * (kDot ? kQueryMax : 1);\n"
      "static_assert(kEntryMax == {});\n\n",
      entries.bound, scan.entry_max);
  text +=
      "/// Table indexes of a unit's byte rows.\n"
      "ADAMAS_INLINE void unit_indexes(const U8x64 (&rows)[kUnitRows], U8x64 (&index)[kUnitTables]) {\n";
  text += indexes_text(scan);
  text +=
      "}\n\n/// Entries of one of a unit's tables, from the query's integers.\n"
      "ADAMAS_INLINE Vec<u16, kTableEntries> unit_entries(const int* query, int unit, int table) {\n";
  text += entries.body;
  return text + "}\n";
}

}  // namespace

std::string cpu_code_functions(const Spec& spec) {
  const PackingText packing = packing_text(spec.buckets);
  return fmt::format(
      "namespace adamas_cpu {{\n\n"
      "{}"
      "/// Nibble n of a code row, from the codes of all elements.\n"
      "template <class Code>\n"
      "ADAMAS_INLINE Code pack_nibble(const Code* c, int n) {{\n{}}}\n\n"
      "/// Nibble n of the code row whose byte 0 is at `row`.\n"
      "ADAMAS_INLINE int nibble_of(const u8* row, int n) {{ return row[n / 2 * kTileTokens] >> n % 2 * 4 & "
      "15; }}\n\n"
      "/// Code of element i.\n"
      "ADAMAS_INLINE int code_of(const u8* row, int i) {{\n{}}}\n\n"
      "}}  // namespace adamas_cpu\n",
      bucket_text(spec.buckets), packing.pack, packing.unpack);
}

std::string cpu_scan_functions(const Spec& spec) {
  std::string text = "namespace adamas_cpu {\n\n";
  const auto wide = cpu_wide_scan_layout(spec);
  if (wide) {
    text += "#if defined(__AVX512VBMI__)\n\n";
    text += scan_text(*wide, wide_entries_text());
    text += "\n#else\n\n";
  }
  text += scan_text(cpu_scan_layout(spec), entries_text(spec));
  if (wide) text += "\n#endif\n";
  return text + "\n}  // namespace adamas_cpu\n";
}

}  // namespace adamas::codegen
