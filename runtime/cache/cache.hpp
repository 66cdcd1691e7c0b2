// Kernel cache: from (Spec, Tuning, source, target, options) to a binary, in memory and on disk, compiled at
// most once per process at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/compile/compiler.hpp"

namespace adamas::runtime {

/// What identifies a binary. No paths, no device ordinal, no driver version; compiler identity is metadata.
struct CacheKey {
  std::string unit;                  ///< "select"
  std::string spec;                  ///< canonical text
  std::string tuning;                ///< canonical text
  std::string source;                ///< whole translation unit, templates included
  std::string target;                ///< "sm_90a", "x86-64-v3", host feature text
  std::vector<std::string> options;  ///< ordered, without paths

  std::string text() const;    ///< length-prefixed fields, schema version first
  std::string digest() const;  ///< 128-bit xxHash of text(), 32 hex digits
};

struct CacheEntry {
  std::shared_ptr<const std::vector<std::byte>> binary;
  std::string target;
  std::string compiler;   ///< name, version, build id
  double compile_ms = 0;  ///< what it cost when it was made
  std::string path;       ///< the file that holds it, "" when it is in memory only
  enum class Origin { memory, disk, compiled } origin = Origin::memory;
};

enum class LogLevel { info, warning };
using LogFn = std::function<void(LogLevel, const std::string&)>;

struct CacheStats {
  std::uint64_t entries = 0, bytes = 0, hits_memory = 0, hits_disk = 0, misses = 0, compiles = 0,
                rejected = 0;
};

/// An entry of the folder, as its metadata describes it.
struct CacheListing {
  std::string digest, unit, spec, tuning, target;
  std::string compiler;     ///< name, version, build id
  std::uint64_t bytes = 0;  ///< of the file
  double compile_ms = 0;
  std::int64_t created_us = 0;  ///< microseconds since 1970 UTC
  std::string path;
};

/// Thread-safe. Binaries that were found or compiled stay in memory as long as the Cache lives: they are few
/// (finite sets of Specs) and small (tens of KB), and without a usable folder memory is the only place to
/// find them again.
class Cache {
 public:
  /// Never fails for the folder's sake: one that cannot be used (not creatable, owned or writable by others)
  /// leaves the cache in memory, with one warning that names path and fix.
  /// @param directory  nothing = default_directory(), with a warning when there is none; "" = memory only
  /// @param log        may be empty; called from any thread that uses the cache
  Cache(std::optional<std::string> directory, LogFn log);
  ~Cache();

  /// $ADAMAS_CACHE_DIR, $XDG_CACHE_HOME/adamas, ~/.cache/adamas, "" (secure_getenv; "" means memory only).
  static std::string default_directory();

  /// Looks for every key in order (memory, then disk); on a miss compiles the first through `compile`,
  /// publishes and returns it. One compile per first key in flight in this process; failures are never
  /// stored; waiting threads get the same exception. `compile` runs outside every lock and must not ask this
  /// cache for the same key.
  /// @param keys  one for each target that would do, at least one
  CacheEntry get(const std::vector<CacheKey>& keys,
                 const std::function<CompileResult(const CacheKey&)>& compile);

  /// Only looks. An empty (null) binary when nothing is found.
  CacheEntry find(const std::vector<CacheKey>& keys);

  /// A loader refused this binary: forget it, and remove its file if that still holds the same bytes. This
  /// Cache never reads these bytes from disk for the key again, even if the file cannot be removed.
  /// @param key  the one of the entry's target
  void reject(const CacheKey& key, const CacheEntry& entry);

  const std::string& directory() const;    ///< absolute; "" when kernels are kept in memory only
  CacheStats stats() const;                ///< of this process's use, and of the folder's size
  std::vector<CacheListing> list() const;  ///< oldest first; reads metadata only, verifies nothing
  std::uint64_t clear();  ///< removes our entries from the folder; returns how many. Memory keeps what it has

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace adamas::runtime
