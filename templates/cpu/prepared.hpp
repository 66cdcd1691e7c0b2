// A prepared query in memory: what makes order keys of sums and says which of them are kept, then, from
// kTablesAt on, its tables in the order in which the scan reads them ([unit][table][plane] of kTableEntries bytes).
#pragma once

#include "templates/cpu/example_scan.hpp"
#include "templates/cpu/types.hpp"

namespace adamas_cpu {

constexpr int kTableBytes = kUnits * kUnitTables * kPlanes * kTableEntries;
constexpr int kTablesAt = 64;

struct KeyRule {
  int offset;      // order key = kKeyFactor * sum + offset
  OrderKey least;  // keys below it are not kept (of a K/V head's first query where the heads share a list)
  int units;       // whose entries never exceed a byte together, whatever the codes
};
static_assert(int(sizeof(KeyRule)) <= kTablesAt && kTablesAt + kTableBytes <= kPreparedBytes);

ADAMAS_INLINE u8* prepared_query(const Args& args, i64 row, i64 query_head) {
  return args.prepared + (row * args.kv_heads * kGroup + query_head) * kPreparedBytes;
}
ADAMAS_INLINE KeyRule& key_rule(u8* prepared) { return *reinterpret_cast<KeyRule*>(prepared); }

}  // namespace adamas_cpu
