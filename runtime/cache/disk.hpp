// Disk: the cache folder. Shards of two hex digits, one file per kernel:
//
//   <directory>/3f/3f..(32 digits).<16 digits of the compiler's identity>.adamas
//   <directory>/.adamas-state                                               locks, totals: state.hpp
//
// Several compilers' entries of one key may lie side by side; the newest answers. Trouble with the folder is
// never an error: what cannot be read is a miss, what cannot be written stays in memory, and one warning says
// why.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/cache/cache.hpp"
#include "runtime/cache/entry.hpp"
#include "runtime/cache/folder.hpp"
#include "runtime/cache/state.hpp"

namespace adamas::runtime {

/// Whether the folder's file of this name is an entry.
bool is_entry_name(std::string_view name);
bool is_shard_name(std::string_view name);

class Disk {
 public:
  /// Creates the folder if need be. One that cannot be used is warned of once and left alone from then on.
  /// @param max_bytes  the cap; 0 = none
  Disk(std::string directory, std::uint64_t max_bytes, std::chrono::seconds prune_interval, LogFn log);

  /// Absolute; "" when there is no usable folder.
  const std::string& directory() const { return directory_; }

  struct Found {
    EntryInfo info;
    std::shared_ptr<const std::vector<std::byte>> binary;
    std::string path;
  };
  /// The newest good entry of the key that `refused` does not reject, marked as used. Damaged files are
  /// removed with a warning.
  std::optional<Found> load(const std::string& digest, std::string_view key_text,
                            const std::function<bool(std::span<const std::byte>)>& refused);

  /// Writes an entry, and prunes the folder if that is due. @return its path, "" when it could not be written
  std::string publish(const EntryInfo&, std::string_view key_text, std::span<const std::byte> binary);

  /// Removes the key's entries that hold exactly these bytes.
  void remove(const std::string& digest, std::string_view key_text, std::span<const std::byte> binary);

  /// An opening of the state file for locks; closed where there is no folder that can be written to.
  StateFile open_state();

  /// Entries by their metadata; files without a readable one are left out.
  std::vector<CacheListing> list();

  void visit(const std::function<void(const CheckedEntry&)>& visit);

  struct Usage {
    std::uint64_t entries = 0, bytes = 0;
  };
  Usage usage();

  /// Removes entries, and temporary files left behind; nothing that is not ours. @return entries removed
  std::uint64_t clear();

  std::uint64_t max_bytes() const { return max_bytes_; }
  /// See Cache::prune. @param max_bytes  0 = no cap
  PruneReport prune(std::uint64_t max_bytes, std::chrono::seconds unused_for);
  std::uint64_t pruned() const { return pruned_; }

  /// Adds to the folder's totals, as far as it can be written to.
  void add_totals(const CacheCounters& counted);
  CacheTotals totals();

  void warn_once(const std::string& subject, const std::string& message);
  void inform(const std::string& message) const;

 private:
  struct Candidate;  // an entry file of one key, read and checked
  std::vector<Candidate> read_candidates(int shard, const std::string& digest, std::string_view key_text);
  Opened open_root();
  Opened open_shard(const Opened& root, const std::string& shard);
  void for_each_shard(const std::function<void(int descriptor, const std::string& shard)>& visit);
  std::string path_of(const std::string& shard, const std::string& name) const;
  void prune_if_due();

  std::string directory_;
  std::uint64_t max_bytes_;
  std::chrono::seconds prune_interval_;
  LogFn log_;
  std::atomic<std::uint64_t> pruned_{0};
  std::mutex mutex_;
  std::set<std::string> warned_;  // subjects, guarded by mutex_
};

}  // namespace adamas::runtime
