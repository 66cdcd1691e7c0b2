// Where things are: what a row of the call sees, and which slot of the cache holds a position.
//
// Lengths, starts and tables are device data that nobody has checked. Whatever they hold, a location that
// comes out of here lies inside the cache; what had to be clamped is told by a status bit.
#pragma once

#include "templates/cpu/convert.hpp"

namespace adamas_cpu {

/// One query row: it stands at position `own` and sees positions first..own. An inert row (padding, or more
/// rows than tokens) has own = -1 and sees none.
struct Row {
  i64 number;  // of the call
  i64 sequence;
  i64 length;              // tokens of the sequence, clamped
  i64 start;               // index of position 0
  const int* table;        // its pages, where there are tables
  const int* value_table;  // those of V, where they are others
  i64 indexes;             // that these pages have
  i64 first;
  i64 own;
  bool clamped;  // the length was not within 0..max_tokens

  i64 visible() const { return own - first + 1; }
};

/// Where the row's pages are listed.
ADAMAS_INLINE void find_pages(const Args& args, Row& row) {
  i64 first = row.sequence * args.table_stride, pages = args.table_stride;
  if constexpr (kCsr) {
    first = args.indptr[row.sequence];
    pages = args.indptr[row.sequence + 1] - first;
    // What is no range of the table, or an empty one, has no place: any index is reported and becomes 0.
    if (first < 0 || pages <= 0 || first + pages > args.table_stride) {
      first = 0, pages = 1;
      row.start = i64(1) << 40;
    }
  }
  row.table = args.table + first;
  if constexpr (kSplitTables) row.value_table = args.value_table + first;
  row.indexes = pages * kPageTokens;
}

ADAMAS_FUNCTION Row row_of(const Args& args, unsigned number) {
  Row row{};
  row.number = number;
  row.sequence = number / kQueryRows;
  const i64 given = args.lengths[row.sequence];
  row.length = smaller(larger(given, i64(0)), args.max_tokens);
  row.clamped = row.length != given;
  row.start = args.starts != nullptr ? args.starts[row.sequence] : 0;
  if constexpr (kPageTokens > 0) find_pages(args, row);
  row.own = row.length - kQueryRows + number % kQueryRows;
  if (row.own < 0) {
    row.own = -1;
    return row;
  }
  if constexpr (kWindow) row.first = smaller(larger(row.own - args.window + 1, i64(0)), row.own + 1);
  return row;
}

/// Tokens that a selection of this row may hold.
ADAMAS_FUNCTION i64 row_budget(const Args& args, const Row& row) {
  if (args.row_budgets == nullptr) return kBudget;
  return smaller(larger(i64(args.row_budgets[row.number]), i64(0)), i64(kBudget));
}

/// Whether the row attends to everything it sees instead of a selection.
ADAMAS_FUNCTION bool attends_all(const Args& args, const Row& row) {
  return args.all_tokens != 0 || row.visible() <= args.dense_below;
}

/// Whether nobody wants the row's lists, as it attends to all.
ADAMAS_FUNCTION bool needs_no_lists(const Args& args, const Row& row) {
  return args.skip_short_rows != 0 && attends_all(args, row);
}

/// Counts `heads` answered query heads of a row. Called in the last stage of an operation by each of its work
/// items, of which `item` is the number among the row's; the first of all counts the operation.
ADAMAS_FUNCTION void count_row(const Args& args, const Row& row, int heads, unsigned item) {
  count(args, &adamas_abi::Counters::steps, row.number == 0 && item == 0 ? 1 : 0);
  if (row.clamped) report(args, adamas_abi::kLengthClamped);
  count(args, &adamas_abi::Counters::clamped_rows, row.clamped ? heads : 0);
  count(args, &adamas_abi::Counters::rows, row.visible() > 0 ? heads : 0);
}

/// Tokens of a page: known at compile time where there are tables.
ADAMAS_INLINE i64 page_tokens(const Args& args) { return kPageTokens > 0 ? kPageTokens : args.page_tokens; }

/// A token's place in the cache.
struct Slot {
  i64 page;
  i64 token;  // within the page

  i64 number(const Args& args) const { return page * page_tokens(args) + token; }
};

ADAMAS_INLINE i64 clamp_index(i64 index, i64 limit, u32& status) {
  const i64 inside = smaller(larger(index, i64(0)), limit - 1);
  if (inside != index) status |= adamas_abi::kBadTable;
  return inside;
}

/// The slot that `table` has for index `index` (start + position) of a row's sequence.
ADAMAS_INLINE Slot slot_in(const int* table, const Args& args, const Row& row, i64 index, u32& status) {
  if constexpr (kPageTokens > 0) {
    const u64 inside = static_cast<u64>(clamp_index(index, row.indexes, status));
    const i64 entry = table[inside / kPageTokens];
    return {clamp_index(entry, args.pages, status), static_cast<i64>(inside % kPageTokens)};
  } else {
    return {args.sequence_slots > 0 ? row.sequence : 0, clamp_index(index, args.page_tokens, status)};
  }
}

/// The slot of an index: where its code is, and its K.
ADAMAS_INLINE Slot slot_of_index(const Args& args, const Row& row, i64 index, u32& status) {
  return slot_in(row.table, args, row, index, status);
}

/// Where the V of index `index` is, whose K is in `slot`.
ADAMAS_INLINE Slot value_slot(const Args& args, const Row& row, i64 index, Slot slot, u32& status) {
  if constexpr (kSplitTables) return slot_in(row.value_table, args, row, index, status);
  return slot;
}

/// What elements of a K/V head are stored divided by, where kScaled.
ADAMAS_INLINE float key_scale(const Args& args, i64 head) { return args.key_scale[head * args.scale_stride]; }
ADAMAS_INLINE float value_scale(const Args& args, i64 head) {
  return args.value_scale[head * args.scale_stride];
}

/// What lies `in_page` elements into a page, which is `offset` bytes behind its own address or one of equal
/// pages behind `base`; null where the page is nowhere.
ADAMAS_INLINE const Kv::Raw* row_in_page(const Args& args, i64 page, const void* base, i64 page_stride,
                                         i64 offset, i64 in_page) {
  if constexpr (kPointers) {
    const u64 address = args.page_addresses[page];
    if (address == 0) return nullptr;
    return reinterpret_cast<const Kv::Raw*>(address + static_cast<u64>(offset)) + in_page;
  }
  return static_cast<const Kv::Raw*>(base) + page * page_stride + in_page;
}

/// The K row of a slot, and the V row; null where its page is nowhere.
ADAMAS_INLINE const Kv::Raw* key_row(const Args& args, Slot slot, i64 head) {
  return row_in_page(args, slot.page, args.keys, args.key_page_stride, args.key_offset,
                     slot.token * args.key_token_stride + head * args.key_head_stride);
}
ADAMAS_INLINE const Kv::Raw* value_row(const Args& args, Slot slot, i64 head) {
  return row_in_page(args, slot.page, args.values, args.value_page_stride, args.value_offset,
                     slot.token * args.value_token_stride + head * args.value_head_stride);
}

/// The slot of number `number`; false for padding (any negative number) and for slots beyond the cache, which
/// are reported.
ADAMAS_INLINE bool slot_of_number(const Args& args, i64 number, Slot& slot, u32& status) {
  if (number < 0) return false;
  const i64 tokens = page_tokens(args);
  if (number >= args.pages * tokens) {
    status |= adamas_abi::kBadSlot;
    return false;
  }
  slot = {static_cast<i64>(static_cast<u64>(number) / static_cast<u64>(tokens)),
          static_cast<i64>(static_cast<u64>(number) % static_cast<u64>(tokens))};
  return true;
}

// Codes of a (page, head): tiles of kTileTokens tokens, a tile holding byte row after byte row, a byte row
// one byte of every token. Byte j of a token's code row is therefore at code_bytes() + j * kTileTokens; with
// kTileTokens = 1 the same formula describes plain rows, token after token.
ADAMAS_INLINE u8* code_bytes(const Args& args, Slot slot, i64 head) {
  u8* const block = args.codes + slot.page * args.code_page_stride + head * args.code_head_stride;
  return block + slot.token / kTileTokens * (kTileTokens * kRowBytes) + slot.token % kTileTokens;
}

}  // namespace adamas_cpu
