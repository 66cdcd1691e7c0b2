// The tokens that compete for a row's selection: what it sees, without the forced first and last ones.
#pragma once

#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

struct OpenRange {
  i64 begin, end;    // positions; before them and after them are the forced ones
  i64 sink, recent;  // forced tokens that the budget has room for: the last before `begin`, the last of all
  i64 wanted;        // tokens to choose, at most end - begin
  i64 limit;         // sink + recent + wanted

  i64 size() const { return end - begin; }
};

ADAMAS_FUNCTION OpenRange open_range(const Args& args, const Row& row) {
  OpenRange open;
  open.limit = smaller(row_budget(args, row), row.visible());
  open.end = larger(row.first, row.own + 1 - kRecent);
  open.begin = smaller(larger(row.first, i64(kSink)), open.end);
  open.recent = smaller(row.own + 1 - open.end, open.limit);
  open.sink = smaller(open.begin - row.first, open.limit - open.recent);
  open.wanted = smaller(open.size(), open.limit - open.recent - open.sink);
  return open;
}

}  // namespace adamas_cpu
