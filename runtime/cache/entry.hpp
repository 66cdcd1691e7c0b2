// Entry: the file format of one cached binary. Only bytes in memory; folders and files are disk.hpp's affair.
//
//   magic (8) | schema (4) | checksum (16) | bytes of metadata (4), of key (4), of binary (8) | metadata |
//   key | binary
//
// Numbers are little-endian. The checksum (128-bit xxHash) covers everything after itself; the metadata is
// JSON for people and listings; the key is the whole text that was looked up, compared on every load, so that
// neither a renamed file nor a digest that two keys share can bring a wrong kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adamas::runtime {

/// What the metadata says. None of it decides whether an entry answers a key.
struct EntryInfo {
  std::string digest, unit, spec, tuning, target;
  std::vector<std::string> options;
  std::string compiler;  ///< name, version, build id
  double compile_ms = 0;
  std::int64_t created_us = 0;  ///< microseconds since 1970 UTC; of several entries for a key the newest wins
};

inline constexpr std::size_t kEntryHeaderBytes = 44;
/// Bounds on what is read from a file that might be anything.
inline constexpr std::uint64_t kMaxEntryBytes = std::uint64_t{1} << 28;
inline constexpr std::uint32_t kMaxMetadataBytes = std::uint32_t{1} << 20;

/// @throws codegen::Error(ADAMAS_INTERNAL) beyond the bounds above.
std::vector<std::byte> encode_entry(const EntryInfo&, std::string_view key_text,
                                    std::span<const std::byte> binary);

enum class EntryState {
  good,
  damaged,
  foreign,  ///< an entry of another schema: not ours to judge or to remove
};

/// Views into the decoded file.
struct DecodedEntry {
  EntryState state = EntryState::damaged;
  EntryInfo info;
  std::string_view key_text;
  std::span<const std::byte> binary;
};

/// Checks every length, the checksum and the metadata. Never throws; reads nothing outside `file`.
DecodedEntry decode_entry(std::span<const std::byte> file);

/// For listings: bytes of metadata that follow the header, if `header` (kEntryHeaderBytes) starts an entry of
/// this schema whose parts add up to `file_bytes`. The checksum is not looked at.
std::optional<std::uint32_t> metadata_bytes(std::span<const std::byte> header, std::uint64_t file_bytes);
std::optional<EntryInfo> decode_metadata(std::string_view json);

}  // namespace adamas::runtime
