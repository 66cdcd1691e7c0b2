// encode, export_codes, import_codes: stored keys -> codes, and codes <-> one byte an element.
//
// Work item: kSlotBlock slots of the call (x) and one K/V head (y). Keys are rotated eight slots at a time.
#pragma once

#include "templates/cpu/example_codes.hpp"
#include "templates/cpu/hadamard.hpp"
#include "templates/cpu/rows.hpp"

namespace adamas_cpu {

/// The i-th slot number of the call.
ADAMAS_INLINE i64 slot_number(const Args& args, i64 i) {
  return args.slots != nullptr ? args.slots[i] : args.first_slot + i;
}

/// Whether eight slots are neighbours in one tile, so that a byte row takes them in one store.
ADAMAS_INLINE bool adjacent(const Slot (&slots)[8]) {
  bool is_run = kTileTokens > 1 && slots[0].token % 8 == 0;
  for (int lane = 1; lane < 8; ++lane) {
    is_run &= slots[lane].page == slots[0].page && slots[lane].token == slots[0].token + lane;
  }
  return is_run;
}

using U8x8 = Vec<u8, 8>;

/// Codes of slots[0..used-1] from their keys: byte j of lane l's code row is rows[j][l]. The other lanes
/// repeat the first slot.
ADAMAS_NOINLINE void code_rows(const Args& args, Slot (&slots)[8], int used, i64 head,
                               U8x8 (&rows)[kRowBytes]) {
  for (int lane = used; lane < 8; ++lane)
    slots[lane] = slots[0];
  const Kv::Raw* keys[8];
  for (int lane = 0; lane < 8; ++lane)
    keys[lane] = key_row(args, slots[lane], head);

  F32x8 rotated[kHeadDim];
  load_rows<Kv>(keys, rotated);
  if constexpr (kScaled) {
    const float factor = key_scale(args, head);
    ADAMAS_ROLLED
    for (int i = 0; i < kHeadDim; ++i)
      rotated[i] *= factor;
  }
  rotate(rotated);

  I32x8 codes[kHeadDim];
  const float* const thresholds = args.key_thresholds + head * (kBuckets - 1);
  ADAMAS_ROLLED
  for (int i = 0; i < kHeadDim; ++i)
    codes[i] = bucket(rotated[i], thresholds);

  ADAMAS_ROLLED
  for (int j = 0; j < kRowBytes; ++j) {
    const I32x8 both = pack_nibble(codes, 2 * j) | pack_nibble(codes, 2 * j + 1) << 4;
    rows[j] = __builtin_convertvector(both, U8x8);
  }
}

/// Encodes slots[0..used-1].
ADAMAS_NOINLINE void encode_lanes(const Args& args, Slot (&slots)[8], int used, i64 head) {
  U8x8 rows[kRowBytes];
  code_rows(args, slots, used, head, rows);
  if (adjacent(slots)) {
    u8* const to = code_bytes(args, slots[0], head);
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; ++j)
      store(to + j * kTileTokens, rows[j]);
    return;
  }
  for (int lane = 0; lane < used; ++lane) {
    u8* const to = code_bytes(args, slots[lane], head);
    const u8* const from = reinterpret_cast<const u8*>(rows) + lane;
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; ++j)
      to[j * kTileTokens] = from[j * 8];
  }
}

/// Calls use(slot, i) for every slot of block x that lies in the cache.
template <class Use>
ADAMAS_INLINE void for_slots(const Args& args, unsigned x, Use use) {
  const i64 first = i64(x) * kSlotBlock;
  const i64 end = smaller(first + kSlotBlock, args.count);
  u32 status = 0;
  ADAMAS_ROLLED
  for (i64 i = first; i < end; ++i) {
    Slot slot;
    if (slot_of_number(args, slot_number(args, i), slot, status)) use(slot, i);
  }
  report(args, status);
}

}  // namespace adamas_cpu

ADAMAS_STAGE adamas_encode(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned) {
  using namespace adamas_cpu;
  Slot slots[8];
  int used = 0;
  i64 encoded = 0;
  for_slots(*args, x, [&](Slot slot, i64) {
    if (kPointers && key_row(*args, slot, y) == nullptr) return;
    slots[used++] = slot;
    ++encoded;
    if (used == 8) {
      encode_lanes(*args, slots, used, y);
      used = 0;
    }
  });
  if (used > 0) encode_lanes(*args, slots, used, y);
  count(*args, &adamas_abi::Counters::tokens_encoded, encoded);
}

ADAMAS_STAGE adamas_export_codes(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned) {
  using namespace adamas_cpu;
  for_slots(*args, x, [&](Slot slot, i64 i) {
    const u8* const from = code_bytes(*args, slot, y);
    u8* const to = args->bytes + (i * args->kv_heads + y) * kHeadDim;
    ADAMAS_ROLLED
    for (int e = 0; e < kHeadDim; ++e)
      to[e] = static_cast<u8>(code_of(from, e));
  });
}

ADAMAS_STAGE adamas_import_codes(const adamas_abi::Args* args, unsigned x, unsigned y, unsigned) {
  using namespace adamas_cpu;
  for_slots(*args, x, [&](Slot slot, i64 i) {
    const u8* const from = args->bytes + (i * args->kv_heads + y) * kHeadDim;
    int codes[kHeadDim];
    ADAMAS_ROLLED
    for (int e = 0; e < kHeadDim; ++e)
      codes[e] = from[e] % kBuckets;
    u8* const to = code_bytes(*args, slot, y);
    ADAMAS_ROLLED
    for (int j = 0; j < kRowBytes; ++j) {
      to[j * kTileTokens] = static_cast<u8>(pack_nibble(codes, 2 * j) | pack_nibble(codes, 2 * j + 1) << 4);
    }
  });
}
