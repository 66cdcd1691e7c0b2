// check_codes: codes made again from stored keys and compared with what is there; on request what differs is
// mended.
//
// Work item as encode's. A slot that encode would skip is skipped.
#pragma once

#include "templates/cpu/encode.hpp"

namespace adamas_cpu {

/// Compares the codes of slots[0..used-1] with those of their keys; with `mend` the latter take their place.
/// @return  bit l: lane l's differed
ADAMAS_NOINLINE unsigned check_lanes(const Args& args, Slot (&slots)[8], int used, i64 head) {
  U8x8 rows[kRowBytes];
  code_rows(args, slots, used, head, rows);
  unsigned stale = 0;
  for (int lane = 0; lane < used; ++lane) {
    u8* const stored = code_bytes(args, slots[lane], head);
    const u8* const made = reinterpret_cast<const u8*>(rows) + lane;
    unsigned difference = 0;
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; ++j)
      difference |= stored[j * kTileTokens] ^ made[j * 8];
    if (difference == 0) continue;
    stale |= 1u << lane;
    if (args.mend == 0) continue;
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; ++j)
      stored[j * kTileTokens] = made[j * 8];
  }
  return stale;
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_check_codes(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned) {
  using namespace adamas_cpu;
  if (args->bytes != nullptr) {  // slots that are skipped say 0, too
    const i64 first = i64(x) * kSlotBlock, end = smaller(first + kSlotBlock, args->count);
    ADAMAS_ROLLED
    for (i64 i = first; i < end; ++i)
      args->bytes[i * args->kv_heads + y] = 0;
  }
  Slot slots[8];
  i64 items[8];
  int used = 0;
  i64 checked = 0, differing = 0;
  const auto check = [&] {
    const unsigned stale = check_lanes(*args, slots, used, y);
    for (int lane = 0; lane < used; ++lane) {
      if ((stale >> lane & 1) == 0) continue;
      ++differing;
      if (args->bytes != nullptr) args->bytes[items[lane] * args->kv_heads + y] = 1;
    }
    used = 0;
  };
  for_slots(*args, x, [&](Slot slot, i64 i) {
    if (kPointers && key_row(*args, slot, y) == nullptr) return;
    slots[used] = slot;
    items[used++] = i;
    ++checked;
    if (used == 8) check();
  });
  if (used > 0) check();
  count(*args, &adamas_abi::Counters::tokens_checked, checked);
  count(*args, &adamas_abi::Counters::tokens_stale, differing);
}
