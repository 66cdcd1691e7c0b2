// Disk: the cache folder. Shards of two hex digits, one file per kernel:
//
//   <directory>/3f/3f..(32 digits).<16 digits of the compiler's identity>.adamas
//
// Several compilers' entries of one key may lie side by side; the newest answers. Trouble with the folder is
// never an error: what cannot be read is a miss, what cannot be written stays in memory, and one warning says
// why.
#pragma once

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

namespace adamas::runtime {

class Disk {
 public:
  /// Creates the folder if need be. One that cannot be used is warned of once and left alone from then on.
  Disk(std::string directory, LogFn log);

  /// Absolute; "" when there is no usable folder.
  const std::string& directory() const { return directory_; }

  struct Found {
    EntryInfo info;
    std::shared_ptr<const std::vector<std::byte>> binary;
    std::string path;
  };
  /// The newest good entry of the key that `refused` does not reject. Damaged files are removed with a
  /// warning.
  std::optional<Found> load(const std::string& digest, std::string_view key_text,
                            const std::function<bool(std::span<const std::byte>)>& refused);

  /// Writes an entry. @return its path, "" when it could not be written
  std::string publish(const EntryInfo&, std::string_view key_text, std::span<const std::byte> binary);

  /// Removes the key's entries that hold exactly these bytes.
  void remove(const std::string& digest, std::string_view key_text, std::span<const std::byte> binary);

  /// Entries by their metadata; files without a readable one are left out.
  std::vector<CacheListing> list();

  struct Usage {
    std::uint64_t entries = 0, bytes = 0;
  };
  Usage usage();

  /// Removes entries, and temporary files left behind; nothing that is not ours. @return entries removed
  std::uint64_t clear();

 private:
  struct Candidate;  // an entry file of one key, read and checked
  std::vector<Candidate> read_candidates(int shard, const std::string& digest, std::string_view key_text);
  Opened open_root();
  Opened open_shard(const Opened& root, const std::string& shard);
  void for_each_shard(const std::function<void(int descriptor, const std::string& shard)>& visit);
  std::string path_of(const std::string& shard, const std::string& name) const;
  void warn_once(const std::string& subject, const std::string& message);

  std::string directory_;
  LogFn log_;
  std::mutex mutex_;
  std::set<std::string> warned_;  // subjects, guarded by mutex_
};

}  // namespace adamas::runtime
