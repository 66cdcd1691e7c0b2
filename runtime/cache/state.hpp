// State: one small file of the cache folder, .adamas-state. Processes lock bytes of it to take turns, and it
// keeps what concerns the folder as a whole: when it was last pruned, and what all caches on it have counted.
//
// Locks are the kernel's, held for an open file (F_OFD_SETLK): they end with the process, however it ends, so
// none can go stale; and threads of one process exclude each other as processes do. A key's lock is one byte,
// far beyond the file's end, at a place that its digest gives: no files to clean up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/cache/cache.hpp"
#include "runtime/file_descriptor.hpp"

namespace adamas::runtime {

inline constexpr std::string_view kStateName = ".adamas-state";

/// What the file holds.
struct FolderState {
  std::int64_t pruned_us = 0;  ///< microseconds since 1970 UTC; 0 = never
  CacheTotals totals;
};

/// Bytes of the file that may be locked.
std::int64_t lock_of_key(std::string_view digest);  ///< hex digits
inline constexpr std::int64_t kLockOfPrune = 0, kLockOfContents = 1;

/// One opening of the file. Its locks are its own and end with it.
class StateFile {
 public:
  enum class Attempt { taken, busy, impossible };

  /// Nothing is open: every lock is impossible, there is no content.
  StateFile() = default;
  explicit StateFile(FileDescriptor file) : file_(std::move(file)) {}

  explicit operator bool() const { return static_cast<bool>(file_); }

  /// Never waits. `impossible`: the file system has no locks, or none are left.
  Attempt try_lock(std::int64_t lock);
  /// Tries for a few milliseconds: for locks that are held for microseconds.
  bool lock_briefly(std::int64_t lock);
  void unlock(std::int64_t lock);

  /// Defaults when nothing was written yet, or what is there is damaged.
  FolderState read() const;
  /// The caller holds kLockOfContents. @return whether it was written
  bool write(const FolderState& state);

 private:
  FileDescriptor file_;
};

}  // namespace adamas::runtime
