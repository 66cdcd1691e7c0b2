// Where a token lies: from a position of a sequence, or a physical slot, to a page and a token in it.
// Whatever tables, starts and slots hold, a place is inside the cache.
#pragma once

#include "templates/cuda/row.cuh"

namespace adamas_cuda {

struct Place {
  int page;  ///< negative: no token
  int token;
};

/// Tokens of a page: known here where there are tables, a capacity of the cache otherwise.
__device__ __forceinline__ i64 page_tokens(const Args& args) {
  return kPaged ? i64{kPageSize} : args.page_tokens;
}

/// `value` clamped to 0 .. limit-1. A value that had to move raises kBadTable in `status`.
__device__ __forceinline__ i64 clamp_index(i64 value, i64 limit, unsigned& status) {
  const i64 inside = max(i64{0}, min(value, limit - 1));
  if (inside != value) status |= adamas_abi::kBadTable;
  return inside;
}

/// How the positions of one sequence become places. Made once a row: what follows is 32-bit arithmetic.
struct Places {
  const int* table;  ///< pages of the sequence
  unsigned start;    ///< slot index of position 0 in the sequence
  unsigned last;     ///< last valid slot index
  int last_page;     ///< of the cache
  int page;          ///< contiguous: where the sequence lies
};

__device__ __forceinline__ Places places_of_sequence(const Args& args, int sequence, unsigned& status) {
  const i64 start = args.starts == nullptr ? 0 : __ldg(args.starts + sequence);
  constexpr i64 kMostSlots = 0x7fffffff;  // slots are counted in 31 bits
  i64 first_page = sequence * args.table_stride, pages = args.table_stride;
  if constexpr (kCsr) {
    first_page = __ldg(args.indptr + sequence);
    pages = __ldg(args.indptr + sequence + 1) - first_page;
    // What is no range of the table, or an empty one, has no place: any index is reported and becomes 0.
    if (first_page < 0 || pages <= 0 || first_page + pages > args.table_stride) {
      return {args.table, static_cast<unsigned>(kMostSlots), 0, static_cast<int>(args.pages - 1), 0};
    }
  }
  const i64 slots = min(kPaged ? pages * kPageSize : args.page_tokens, kMostSlots);
  return {kPaged ? args.table + first_page : nullptr,
          static_cast<unsigned>(clamp_index(start, slots, status)), static_cast<unsigned>(slots - 1),
          static_cast<int>(args.pages - 1), args.sequence_slots > 0 ? sequence : 0};
}

/// Index of a position in the sequence's slots. Positions count from 0.
__device__ __forceinline__ unsigned slot_index(const Places& places, int position, unsigned& status) {
  const unsigned index = places.start + static_cast<unsigned>(position);
  if (index > places.last) status |= adamas_abi::kBadTable;
  return min(index, places.last);
}

/// Page that holds a slot index: a load, where there is a table.
__device__ __forceinline__ int page_of_index(const Places& places, unsigned index, unsigned& status) {
  if constexpr (!kPaged) return places.page;
  const int page = __ldg(places.table + index / kPageSize);
  const int inside = max(0, min(page, places.last_page));
  if (inside != page) status |= adamas_abi::kBadTable;
  return inside;
}

/// Token of a slot index in its page.
__device__ __forceinline__ int token_of_index(unsigned index) {
  return static_cast<int>(kPaged ? index % kPageSize : index);
}

/// Place of a position that the row sees.
__device__ __forceinline__ Place place_of_position(const Places& places, int position, unsigned& status) {
  const unsigned index = slot_index(places, position, status);
  return {page_of_index(places, index, status), token_of_index(index)};
}

/// Physical slot of a place.
__device__ __forceinline__ int slot_of(const Args& args, Place place) {
  return static_cast<int>(place.page * page_tokens(args) + place.token);
}

/// Place of item `item` of an encode, export or import call. Negative slots are nowhere; so are slots beyond
/// the cache, with kBadSlot in `status`.
__device__ __forceinline__ Place place_of_item(const Args& args, i64 item, unsigned& status) {
  if (item >= args.count) return {-1, 0};
  const i64 slot = args.slots == nullptr ? args.first_slot + item : __ldg(args.slots + item);
  if (slot < 0) return {-1, 0};
  const i64 page = slot / page_tokens(args);
  if (page >= args.pages) {
    status |= adamas_abi::kBadSlot;
    return {-1, 0};
  }
  return {static_cast<int>(page), static_cast<int>(slot - page * page_tokens(args))};
}

}  // namespace adamas_cuda
