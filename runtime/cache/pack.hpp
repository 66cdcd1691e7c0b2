// Pack: many entries in one read-only file, made ahead of time (`adamas precompile`, `adamas cache pack`) and
// searched before the cache folder.
//
//   magic (8) | schema (4) | zero (4) | checksum (16) of what follows up to the blobs |
//   file bytes (8) | entries (4) | stored (4) and raw (4) bytes of the sets | bytes of the dictionary (4) |
//   index, by ascending digest: digest (16) | checksum (16) of the blob | at (8) | stored (4) | raw (4)
//   sets: a line a kernel set, zstd: target TAB Spec TAB Tuning, and for a shape that was tuned
//     TAB device TAB batch TAB kv_heads TAB tokens
//   dictionary: keys of some entries, as they are
//   blobs: each an entry as entry.hpp has it, zstd with that dictionary
//
// Keys hold whole sources, which differ in a few lines: with the dictionary they cost neither space nor time.
//
// Numbers are little-endian. Equal entries and sets give equal bytes: no times, no paths. A pack is mapped, never
// copied: replace one that is in use by renaming another over it, as the writer does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/cache/entry.hpp"
#include "runtime/file_descriptor.hpp"

namespace adamas::runtime {

/// A kernel set that a pack was made for, and the Tuning it was given.
struct PackedSet {
  std::string target, spec, tuning;  ///< canonical texts
  // The shape that this Tuning was found for, and on what; batch 0: it is for all.
  std::string device_name = {};
  int batch = 0, kv_heads = 0;
  std::int64_t tokens = 0;
  auto operator<=>(const PackedSet&) const = default;
};

/// Immutable; usable from any thread.
class Pack {
 public:
  /// Maps the file and checks everything but the blobs. It must be a regular file, owned by this user or root and
  /// writable by nobody else: what is in it will be run.
  /// @param problem  why there is none, and the way out
  static std::shared_ptr<const Pack> open(const std::string& path, std::string& problem);
  ~Pack();
  Pack(const Pack&) = delete;
  Pack& operator=(const Pack&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t bytes() const { return bytes_.size(); }
  std::size_t entries() const { return entries_; }
  const std::vector<PackedSet>& sets() const { return sets_; }  ///< ascending

  struct Entry {
    EntryInfo info;
    std::string key_text;
    std::shared_ptr<const std::vector<std::byte>> binary;
  };
  /// The entry of the key, its bytes checked and its key compared.
  /// @param damaged  set when there is one that fails its checks
  std::optional<Entry> find(std::string_view digest, std::string_view key_text, bool& damaged) const;

  /// The Tuning that the kernels of this Spec and target were compiled with.
  const std::string* tuning(const std::string& target, const std::string& spec) const;

  /// Entry `index` in the order of digests; nothing when it is damaged.
  std::optional<Entry> read(std::size_t index) const;
  /// Of entry `index`: 32 hex digits, and its size in the pack.
  std::string digest(std::size_t index) const;
  std::uint64_t stored_bytes(std::size_t index) const;

 private:
  struct Record;
  Pack() = default;
  std::string load();  ///< "" or what is wrong with the file
  Record record(std::size_t index) const;
  bool still_whole() const;

  std::string path_;
  FileDescriptor file_;
  std::span<const std::byte> bytes_;  ///< the mapping
  std::span<const std::byte> dictionary_;  ///< part of it
  std::size_t entries_ = 0;
  std::vector<PackedSet> sets_;
};

/// Collects entries and writes them as a pack. Thread-safe.
class PackWriter {
 public:
  PackWriter();
  ~PackWriter();

  /// Keeps it; one of the same digest is replaced. Times are left out: they would differ from run
  /// to run.
  void add(EntryInfo info, std::string_view key_text, std::span<const std::byte> binary);
  void add_set(PackedSet set);

  std::size_t entries() const;
  /// Compresses all and makes `path` hold the pack, at once for every reader. Mode 0644 less the umask.
  /// @param jobs  threads that compress; they change nothing but the time
  /// @return bytes written
  /// @throws codegen::Error(ADAMAS_IO_ERROR) naming the path
  std::uint64_t write(const std::string& path, int jobs = 1) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace adamas::runtime
