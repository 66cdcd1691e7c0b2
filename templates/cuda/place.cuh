// Where a token lies: from a position of a sequence, or a physical slot, to a page and a token in it.
// Whatever tables, starts and slots hold, a place is inside the cache.
#pragma once

#include "templates/cuda/row.cuh"

namespace adamas_cuda {

/// Of a token whose K, code and V lie in one page.
struct SharedPlace {
  int page;  ///< negative: no token
  int token;

  __device__ __forceinline__ int value_page() const { return page; }
  __device__ __forceinline__ void set_value_page(int) {}
};

/// With tables of their own for K and V: the code lies where K does.
struct SplitPlace {
  int page;
  int token;
  int page_of_value = 0;

  __device__ __forceinline__ int value_page() const { return page_of_value; }
  __device__ __forceinline__ void set_value_page(int of_value) { page_of_value = of_value; }
};

template <bool kIsSplit>
struct PlaceOf {
  using Type = SharedPlace;
};
template <>
struct PlaceOf<true> {
  using Type = SplitPlace;
};
using Place = PlaceOf<kSplitTables>::Type;

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
  const int* table;                     ///< pages of the sequence
  const int* value_table;               ///< those of V, where they are others
  const unsigned long long* addresses;  ///< of the cache's pages, where they have any
  unsigned start;                       ///< slot index of position 0 in the sequence
  unsigned last;                        ///< last valid slot index
  int last_page;                        ///< of the cache
  int page;                             ///< contiguous: where the sequence lies
};

__device__ __forceinline__ Places places_of_sequence(const Args& args, int sequence, unsigned& status) {
  const i64 start = args.starts == nullptr ? 0 : args.starts[sequence];
  constexpr i64 kMostSlots = 0x7fffffff;  // slots are counted in 31 bits
  i64 first_page = sequence * args.table_stride, pages = args.table_stride;
  if constexpr (kCsr) {
    first_page = args.indptr[sequence];
    pages = args.indptr[sequence + 1] - first_page;
    // What is no range of the table, or an empty one, has no place: any index is reported and becomes 0.
    if (first_page < 0 || pages <= 0 || first_page + pages > args.table_stride) {
      return {args.table,
              args.value_table,
              args.page_addresses,
              static_cast<unsigned>(kMostSlots),
              0,
              static_cast<int>(args.pages - 1),
              0};
    }
  }
  const i64 slots = min(kPaged ? pages * kPageSize : args.page_tokens, kMostSlots);
  return {kPaged ? args.table + first_page : nullptr,
          kSplitTables ? args.value_table + first_page : nullptr,
          args.page_addresses,
          static_cast<unsigned>(clamp_index(start, slots, status)),
          static_cast<unsigned>(slots - 1),
          static_cast<int>(args.pages - 1),
          args.sequence_slots > 0 ? sequence : 0};
}

/// Index of a position in the sequence's slots. Positions count from 0.
__device__ __forceinline__ unsigned slot_index(const Places& places, int position, unsigned& status) {
  const unsigned index = places.start + static_cast<unsigned>(position);
  if (index > places.last) status |= adamas_abi::kBadTable;
  return min(index, places.last);
}

/// What a table holds, as a page of the cache.
__device__ __forceinline__ int page_inside(const Places& places, int page, unsigned& status) {
  const int inside = max(0, min(page, places.last_page));
  if (inside != page) status |= adamas_abi::kBadTable;
  return inside;
}

/// Page that `table` has for a slot index.
__device__ __forceinline__ int look_up(const int* table, const Places& places, unsigned index,
                                       unsigned& status) {
  return page_inside(places, __ldg(table + index / kPageSize), status);
}

/// Page that holds a slot index: a load, where there is a table.
__device__ __forceinline__ int page_of_index(const Places& places, unsigned index, unsigned& status) {
  if constexpr (!kPaged) return places.page;
  return look_up(places.table, places, index, status);
}

/// Token of a slot index in its page.
__device__ __forceinline__ int token_of_index(unsigned index) {
  return static_cast<int>(kPaged ? index % kPageSize : index);
}

/// Place of a position that the row sees, as far as its code goes: V's page is left out.
__device__ __forceinline__ Place place_of_position(const Places& places, int position, unsigned& status) {
  const unsigned index = slot_index(places, position, status);
  return {page_of_index(places, index, status), token_of_index(index)};
}

/// `place`, whose K and V rows will be read; nowhere, if a page of it is.
__device__ __forceinline__ Place with_memory(const Places& places, Place place, unsigned& status) {
  if constexpr (kPointers) {
    bool exists = __ldg(places.addresses + place.page) != 0;
    if constexpr (kSplitTables) exists = exists && __ldg(places.addresses + place.value_page()) != 0;
    if (!exists) {
      status |= adamas_abi::kBadTable;
      return {-1, 0};
    }
  }
  return place;
}

/// Place of a slot index whose K and V rows will be read.
__device__ __forceinline__ Place place_of_rows(const Places& places, unsigned index, unsigned& status) {
  Place place = {page_of_index(places, index, status), token_of_index(index)};
  if constexpr (kSplitTables) place.set_value_page(look_up(places.value_table, places, index, status));
  return with_memory(places, place, status);
}

/// A K or V row in memory: its element i is number `first` + i of an array.
struct RowInMemory {
  const void* array;
  i64 first;
};

/// Memory `offset` bytes into a page. Of a place that is nowhere: of page 0, not to be read.
__device__ __forceinline__ const void* page_memory(const Args& args, int page, i64 offset) {
  return reinterpret_cast<const void*>(__ldg(args.page_addresses + max(page, 0)) + offset);
}

__device__ __forceinline__ RowInMemory key_row(const Args& args, int kv_head, const Place& place) {
  if constexpr (kPointers) {
    return {page_memory(args, place.page, args.key_offset),
            place.token * args.key_token_stride + cache_head(kv_head) * args.key_head_stride};
  }
  return {args.keys, place.page * args.key_page_stride + place.token * args.key_token_stride +
                         cache_head(kv_head) * args.key_head_stride};
}

__device__ __forceinline__ RowInMemory value_row(const Args& args, int kv_head, const Place& place) {
  const int page = place.value_page();
  if constexpr (kPointers) {
    return {page_memory(args, page, args.value_offset),
            place.token * args.value_token_stride + cache_head(kv_head) * args.value_head_stride};
  }
  return {args.values, page * args.value_page_stride + place.token * args.value_token_stride +
                           cache_head(kv_head) * args.value_head_stride};
}

/// Physical slot of a place.
__device__ __forceinline__ int slot_of(const Args& args, Place place) {
  return static_cast<int>(place.page * page_tokens(args) + place.token);
}

// ---- encode, export, import and check: calls over slots

constexpr int kEncodeWarps = kEncodeThreads / kWarp;

/// First item of this warp in a call over slots.
__device__ __forceinline__ i64 first_item() {
  return (static_cast<i64>(blockIdx.x) * kEncodeWarps + warp_index()) * kSlotsPerWarp;
}

/// Place of a slot. Negative slots are nowhere; so are slots beyond the cache, with kBadSlot in `status`.
__device__ __forceinline__ Place place_of_slot(const Args& args, i64 slot, unsigned& status) {
  if (slot < 0) return {-1, 0};
  const i64 page = slot / page_tokens(args);
  if (page >= args.pages) {
    status |= adamas_abi::kBadSlot;
    return {-1, 0};
  }
  return {static_cast<int>(page), static_cast<int>(slot - page * page_tokens(args))};
}

/// Place of item `item` of an encode, export or import call.
__device__ __forceinline__ Place place_of_item(const Args& args, i64 item, unsigned& status) {
  if (item >= args.count) return {-1, 0};
  return place_of_slot(args, args.slots == nullptr ? args.first_slot + item : __ldg(args.slots + item),
                       status);
}

/// `place`, if its page has memory.
__device__ __forceinline__ Place with_key(const Args& args, Place place) {
  if constexpr (kPointers) {
    if (place.page >= 0 && __ldg(args.page_addresses + place.page) == 0) place.page = -1;
  }
  return place;
}

/// Place of a key of the call.
__device__ __forceinline__ Place place_of_key(const Args& args, i64 item, unsigned& status) {
  return with_key(args, place_of_item(args, item, status));
}

}  // namespace adamas_cuda
