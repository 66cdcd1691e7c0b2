// Kernel cache: from (Spec, Tuning, source, target, options) to a binary, in memory and on disk, compiled by
// one thread of one process at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/compile/compiler.hpp"

namespace adamas::runtime {

class Pack;

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
  std::string path;       ///< the file or pack that holds it, "" when it is in memory only
  enum class Origin { memory, pack, disk, compiled } origin = Origin::memory;
};

enum class LogLevel { info, warning };
using LogFn = std::function<void(LogLevel, const std::string&)>;

/// What happened. Only numbers of one type: written to a file as they lie.
struct CacheCounters {
  std::uint64_t hits_memory = 0;
  std::uint64_t hits_pack = 0;
  std::uint64_t hits_disk = 0;
  std::uint64_t misses = 0;
  std::uint64_t compiles = 0;
  std::uint64_t waits = 0;          ///< for another process that compiled the same key
  std::uint64_t wait_timeouts = 0;  ///< of these, given up: compiled privately
  std::uint64_t rejected = 0;       ///< binaries that a loader refused
  std::uint64_t pruned = 0;         ///< entries removed to keep the folder below its cap
  std::uint64_t fallbacks = 0;      ///< kernels handed out dense while their sparse units compile

  CacheCounters& operator+=(const CacheCounters& more);
  CacheCounters operator-(const CacheCounters& less) const;
  bool operator==(const CacheCounters&) const = default;
};

/// Of one Cache, and of the folder's size.
struct CacheStats : CacheCounters {
  std::uint64_t entries = 0, bytes = 0;
};

/// Of all caches that ever used a folder, as far as they could write there.
struct CacheTotals : CacheCounters {
  std::int64_t since_us = 0;  ///< microseconds since 1970 UTC
};

/// An entry of the folder, as its metadata describes it.
struct CacheListing {
  std::string digest, unit, spec, tuning, target;
  std::string compiler;     ///< name, version, build id
  std::uint64_t bytes = 0;  ///< of the file
  double compile_ms = 0;
  std::int64_t created_us = 0;  ///< microseconds since 1970 UTC
  std::int64_t used_us = 0;     ///< last loaded, to the minute
  std::string path;
};

/// An entry file, read and checked. Views are valid during the visit.
struct CheckedEntry {
  enum class State { good, damaged, foreign /* another schema's: not ours to judge */ } state = State::damaged;
  CacheListing listing;  ///< only the path and size unless it is good
  std::vector<std::string> options;
  std::string_view key_text;
  std::span<const std::byte> binary;
};

struct CacheOptions {
  /// Nothing = default_directory(), with a warning when there is none; "" = memory only.
  std::optional<std::string> directory = std::nullopt;
  /// Packs to search before the folder, first to last: paths with ':' between them. Nothing = $ADAMAS_PACKS. One
  /// that cannot be used is warned of and left out.
  std::optional<std::string> packs = std::nullopt;
  /// Bytes the folder may hold before the least recently used entries go. Nothing = $ADAMAS_CACHE_SIZE
  /// ("512M", "0" for no cap), else 1 GiB.
  std::optional<std::uint64_t> max_bytes = std::nullopt;
  /// How long a miss waits for another process that compiles the same kernel, before it compiles its own.
  std::chrono::milliseconds lock_wait{60'000};
  /// The folder is pruned at most that often, by whichever process publishes next.
  std::chrono::seconds prune_interval{20 * 60};
  LogFn log = {};  ///< may be empty; called from any thread that uses the cache
};

/// What a prune did and left.
struct PruneReport {
  std::uint64_t removed = 0, removed_bytes = 0, kept = 0, kept_bytes = 0;
};

/// Thread-safe. Binaries that were found or compiled stay in memory as long as the Cache lives: they are few
/// (finite sets of Specs) and small (tens of KB), and without a usable folder memory is the only place to
/// find them again.
class Cache {
 public:
  /// Never fails for the folder's sake: one that cannot be used (not creatable, owned or writable by others)
  /// leaves the cache in memory, with one warning that names path and fix.
  explicit Cache(CacheOptions options);
  Cache(std::optional<std::string> directory, LogFn log)
      : Cache(CacheOptions{.directory = std::move(directory), .log = std::move(log)}) {}
  ~Cache();  ///< adds what it counted to the folder's totals

  /// $ADAMAS_CACHE_DIR, $XDG_CACHE_HOME/adamas, ~/.cache/adamas, "" (secure_getenv; "" means memory only).
  static std::string default_directory();

  /// Looks for every key in order (memory, then packs, then disk); on a miss compiles the first through `compile`,
  /// publishes and returns it. One compile per first key in flight among all threads and processes that use
  /// the folder; failures are never stored; waiting threads get the same exception. `compile` runs outside
  /// every mutex and must not ask this cache for the same key.
  /// @param keys  one for each target that would do, at least one
  CacheEntry get(const std::vector<CacheKey>& keys,
                 const std::function<CompileResult(const CacheKey&)>& compile);

  /// Stores what was compiled outside get: beside entries of other compilers, before which it is found.
  CacheEntry put(const CacheKey& key, CompileResult result);

  /// Only looks. An empty (null) binary when nothing is found.
  CacheEntry find(const std::vector<CacheKey>& keys);

  /// A loader refused this binary: forget it, and remove its file if that still holds the same bytes. This
  /// Cache never reads these bytes from disk for the key again, even if the file cannot be removed.
  /// @param key  the one of the entry's target
  void reject(const CacheKey& key, const CacheEntry& entry);

  /// The Tuning that a pack's kernels of this target and Spec (canonical text) were compiled with: what those take
  /// who ask for none. Null when no pack has any.
  const std::string* packed_tuning(const std::string& target, const std::string& spec) const;
  const std::vector<std::shared_ptr<const Pack>>& packs() const;

  /// A kernel was handed out dense while its sparse units compile.
  void count_fallback();

  const std::string& directory() const;    ///< absolute; "" when kernels are kept in memory only
  std::uint64_t max_bytes() const;         ///< the folder's cap, 0 = none
  CacheCounters counters() const;          ///< of this Cache's use
  CacheStats stats() const;                ///< these, and the folder's size
  CacheTotals totals() const;              ///< without what live caches have counted since their last compile
  std::vector<CacheListing> list() const;  ///< oldest first; reads metadata only, verifies nothing
  /// Reads and checks every entry of the folder, whole.
  void visit(const std::function<void(const CheckedEntry&)>& visit) const;
  std::uint64_t clear();  ///< removes our entries from the folder; returns how many. Memory keeps what it has

  /// Removes least recently used entries until no more than `max_bytes` are left, those not used for
  /// `unused_for` (0: any may stay), and what dead processes left behind. Nothing that is not ours.
  /// @param max_bytes  nothing = the cap of the options
  PruneReport prune(std::optional<std::uint64_t> max_bytes = std::nullopt,
                    std::chrono::seconds unused_for = std::chrono::seconds(0));

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// "1073741824", "512M", "1.5 GiB": bytes, with a power of 1024. Nothing when it is no such text.
std::optional<std::uint64_t> parse_bytes(const std::string& text);

}  // namespace adamas::runtime
