// Where a token lies: from a position of a sequence, or a physical slot, to a page and a token in it.
// Whatever tables, starts and slots hold, a place is inside the cache.
#pragma once

#include "templates/cuda/row.cuh"

namespace adamas_cuda {

struct Place {
  int page;  ///< negative: no token
  int token;
};

/// Tokens of a page: known here for block tables, a capacity of the cache otherwise.
__device__ __forceinline__ i64 page_tokens(const Args& args) {
  return kPaged ? i64{kPageSize} : args.page_tokens;
}

/// `value` clamped to 0 .. limit-1. A value that had to move raises kBadTable in `status`.
__device__ __forceinline__ i64 clamp_index(i64 value, i64 limit, unsigned& status) {
  const i64 inside = max(i64{0}, min(value, limit - 1));
  if (inside != value) status |= adamas_abi::kBadTable;
  return inside;
}

/// Place of a position that the row sees.
__device__ __forceinline__ Place place_of_position(const Args& args, int sequence, int position,
                                                   unsigned& status) {
  const i64 start = args.starts == nullptr ? 0 : __ldg(args.starts + sequence);
  if constexpr (kPaged) {
    // A start and a position fit 32 bits together, and a 32-bit division by a constant is cheap.
    const unsigned index =
        static_cast<unsigned>(clamp_index(start + position, args.table_stride * kPageSize, status));
    const unsigned block = index / kPageSize;
    const int page = __ldg(args.table + sequence * args.table_stride + block);
    return {static_cast<int>(clamp_index(page, args.pages, status)),
            static_cast<int>(index - block * kPageSize)};
  } else {
    const i64 token = clamp_index(start + position, args.page_tokens, status);
    return {args.sequence_slots > 0 ? sequence : 0, static_cast<int>(token)};
  }
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
