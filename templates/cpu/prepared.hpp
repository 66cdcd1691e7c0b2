// A prepared query in memory: its tables in the order in which the scan reads them ([unit][table][plane] of
// 16 bytes), then what makes order keys of sums and says which of them are kept.
#pragma once

#include "templates/cpu/example_scan.hpp"
#include "templates/cpu/types.hpp"

namespace adamas_cpu {

constexpr int kTableBytes = kUnits * kUnitTables * kPlanes * 16;

struct KeyRule {
  int offset;      // order key = kKeyFactor * sum + offset
  OrderKey least;  // keys below it are not kept (of a K/V head's first query where the heads share a list)
  int units;       // whose entries never exceed a byte together, whatever the codes
};
static_assert(kTableBytes + int(sizeof(KeyRule)) <= kPreparedBytes);

ADAMAS_INLINE u8* prepared_query(const Args& args, i64 row, i64 query_head) {
  return args.prepared + (row * args.kv_heads * kGroup + query_head) * kPreparedBytes;
}
ADAMAS_INLINE KeyRule& key_rule(u8* prepared) { return *reinterpret_cast<KeyRule*>(prepared + kTableBytes); }

}  // namespace adamas_cpu
