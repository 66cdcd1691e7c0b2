// What the reader and the writer of packs share: sizes, offsets and the layout of records. See pack.hpp.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "runtime/cache/digest.hpp"

namespace adamas::runtime::pack_format {

static_assert(std::endian::native == std::endian::little, "packs are little-endian and mapped as they lie");

inline constexpr char kMagic[8] = {'A', 'D', 'A', 'M', 'A', 'S', 'P', '\n'};
inline constexpr std::uint32_t kSchema = 1;

struct Header {
  char magic[8];
  std::uint32_t schema, zero;
  Digest checksum;
  std::uint64_t file_bytes;
  std::uint32_t entries, sets_stored, sets_raw, dictionary;
};
static_assert(sizeof(Header) == 56);
inline constexpr std::size_t kCheckedFrom = offsetof(Header, file_bytes);

struct Record {
  Digest digest, checksum;
  std::uint64_t at;
  std::uint32_t stored, raw;
};
static_assert(sizeof(Record) == 48);

/// Bound on the text of the sets, which a reader unpacks as a whole.
inline constexpr std::uint32_t kMaxSetsBytes = std::uint32_t{1} << 26;
/// Bound on the dictionary, which is checked whenever a pack is opened.
inline constexpr std::uint32_t kMaxDictionaryBytes = std::uint32_t{1} << 20;

}  // namespace adamas::runtime::pack_format
