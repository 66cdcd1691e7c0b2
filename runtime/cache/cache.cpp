// Cache: memory in front of packs, the folder and the compiler, one compile per key at a time among all
// threads and processes.
#include "runtime/cache/cache.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <future>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>
#include <unordered_map>
#include <utility>

#include "codegen/format.hpp"
#include "runtime/cache/digest.hpp"
#include "runtime/cache/disk.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/cache/state.hpp"

namespace adamas::runtime {
namespace {

/// A key with what is derived from it, worked out once a call: sources are long.
struct Lookup {
  const CacheKey* key;
  std::string text;
  std::string digest;
};

std::vector<Lookup> lookups_of(const std::vector<CacheKey>& keys) {
  std::vector<Lookup> lookups;
  for (const CacheKey& key : keys) {
    std::string text = key.text();
    std::string digest = hex(digest_of(text));
    lookups.push_back({&key, std::move(text), std::move(digest)});
  }
  return lookups;
}

EntryInfo info_of(const Lookup& lookup, const CompileResult& result) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const CacheKey& key = *lookup.key;
  return {.digest = lookup.digest,
          .unit = key.unit,
          .spec = key.spec,
          .tuning = key.tuning,
          .target = key.target,
          .options = key.options,
          .compiler = result.compiler,
          .compile_ms = result.milliseconds,
          .created_us = std::chrono::duration_cast<std::chrono::microseconds>(now).count()};
}

std::string environment(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? "" : value;
}

std::uint64_t cap_from_environment(const LogFn& log) {
  constexpr std::uint64_t kDefaultBytes = std::uint64_t{1} << 30;
  const std::string text = environment("ADAMAS_CACHE_SIZE");
  if (text.empty()) return kDefaultBytes;
  if (const auto bytes = parse_bytes(text)) return *bytes;
  if (log)
    log(LogLevel::warning,
        "ADAMAS_CACHE_SIZE=" + text + ": must be a number of bytes such as 512M or 2GiB; 1 GiB is taken");
  return kDefaultBytes;
}

std::string directory_of(const CacheOptions& options) {
  if (options.directory) return *options.directory;
  std::string directory = Cache::default_directory();
  if (directory.empty() && options.log)
    options.log(LogLevel::warning,
                "cache folder: HOME is not set; kernels are kept in memory only (set ADAMAS_CACHE_DIR to a "
                "folder)");
  return directory;
}

std::vector<std::shared_ptr<const Pack>> open_packs(const CacheOptions& options) {
  std::vector<std::shared_ptr<const Pack>> packs;
  std::istringstream list(options.packs ? *options.packs : environment("ADAMAS_PACKS"));
  for (std::string path; std::getline(list, path, ':');) {
    if (path.empty()) continue;
    std::string problem;
    if (auto pack = Pack::open(path, problem))
      packs.push_back(std::move(pack));
    else if (options.log)
      options.log(LogLevel::warning, "pack: " + problem + "; it is not used");
  }
  return packs;
}

using Clock = std::chrono::steady_clock;

}  // namespace

struct Cache::Impl {
  explicit Impl(const CacheOptions& options)
      : disk(directory_of(options),
             options.max_bytes ? *options.max_bytes : cap_from_environment(options.log),
             options.prune_interval, options.log),
        packs(open_packs(options)),
        lock_wait(options.lock_wait) {}

  Disk disk;
  const std::vector<std::shared_ptr<const Pack>> packs;
  const std::chrono::milliseconds lock_wait;
  const pid_t owner_process = ::getpid();

  std::mutex mutex;  // guards what follows; never held while a file is read or a compiler runs
  // By digest alone: every entry here was made or checked against the whole key text in this process.
  std::unordered_map<std::string, CacheEntry> memory;
  std::unordered_map<std::string, std::shared_future<CacheEntry>> in_flight;  // by digest of the first key
  std::set<std::pair<std::string, Digest>> refused;  // (key, binary) that a loader rejected
  CacheCounters stats;
  CacheCounters told;  // what the folder's totals have of them

  /// The caller holds the mutex. A hit is counted.
  std::optional<CacheEntry> find_in_memory(const std::vector<Lookup>& lookups) {
    for (const Lookup& lookup : lookups) {
      const auto found = memory.find(lookup.digest);
      if (found == memory.end()) continue;
      ++stats.hits_memory;
      CacheEntry entry = found->second;
      entry.origin = CacheEntry::Origin::memory;
      return entry;
    }
    return std::nullopt;
  }

  /// Packs, then the folder, for each key in turn. A hit goes to memory before anybody sees it.
  std::optional<CacheEntry> find_stored(const std::vector<Lookup>& lookups) {
    for (const Lookup& lookup : lookups) {
      const auto is_refused = [&](std::span<const std::byte> binary) {
        const std::lock_guard lock(mutex);
        return !refused.empty() && refused.contains({lookup.digest, digest_of(binary)});
      };
      auto entry = find_in_packs(lookup, is_refused);
      if (!entry) entry = find_on_disk(lookup, is_refused);
      if (!entry) continue;
      const std::lock_guard lock(mutex);
      ++(entry->origin == CacheEntry::Origin::pack ? stats.hits_pack : stats.hits_disk);
      memory.insert_or_assign(lookup.digest, *entry);
      return entry;
    }
    return std::nullopt;
  }

  using Refused = std::function<bool(std::span<const std::byte>)>;

  std::optional<CacheEntry> find_in_packs(const Lookup& lookup, const Refused& is_refused) {
    for (const auto& pack : packs) {
      bool damaged = false;
      const auto found = pack->find(lookup.digest, lookup.text, damaged);
      if (damaged)
        disk.warn_once(pack->path() + lookup.digest, fmt::format("pack {}: entry {} is damaged; the kernel counts as "
                                                                 "missing there",
                                                                 pack->path(), lookup.digest));
      if (!found || is_refused(*found->binary)) continue;
      return CacheEntry{.binary = found->binary,
                        .target = lookup.key->target,
                        .compiler = found->info.compiler,
                        .compile_ms = found->info.compile_ms,
                        .path = pack->path(),
                        .origin = CacheEntry::Origin::pack};
    }
    return std::nullopt;
  }

  std::optional<CacheEntry> find_on_disk(const Lookup& lookup, const Refused& is_refused) {
    auto found = disk.load(lookup.digest, lookup.text, is_refused);
    if (!found) return std::nullopt;
    return CacheEntry{.binary = std::move(found->binary),
                      .target = lookup.key->target,
                      .compiler = found->info.compiler,
                      .compile_ms = found->info.compile_ms,
                      .path = found->path,
                      .origin = CacheEntry::Origin::disk};
  }

  /// After a miss: waits until no other process compiles the key, as long as that may take at most.
  /// @param lock  holds the key's lock on return, if it could be had
  /// @return      what another process published meanwhile
  std::optional<CacheEntry> wait_for_turn(const std::vector<Lookup>& lookups, StateFile& lock) {
    const Lookup& first = lookups.front();
    const std::int64_t key_lock = lock_of_key(first.digest);
    const auto deadline = Clock::now() + lock_wait;
    auto pause = std::chrono::milliseconds(1);
    for (bool waited = false;; waited = true) {
      const StateFile::Attempt attempt = lock.try_lock(key_lock);
      if (attempt == StateFile::Attempt::impossible) {
        // Where there is no file, the folder cannot be written to, and publishing says so.
        if (lock)
          disk.warn_once("lock", "cache folder: " + disk.directory() +
                                     " has no file locks; processes do not wait for each other");
        return std::nullopt;
      }
      if (auto entry = find_stored(lookups)) return entry;
      if (attempt == StateFile::Attempt::taken) return std::nullopt;
      if (!waited) {
        count(&CacheCounters::waits);
        disk.inform(fmt::format("waiting for another process that compiles {} of \"{}\" for {}", first.key->unit,
                                first.key->spec, first.key->target));
      }
      if (Clock::now() >= deadline) {
        count(&CacheCounters::wait_timeouts);
        disk.warn_once("wait", fmt::format("cache folder: another process has been compiling {} of \"{}\" for {} ms; "
                                           "it is compiled here too",
                                           first.key->unit, first.key->spec, lock_wait.count()));
        return std::nullopt;
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, std::chrono::milliseconds(16));
    }
  }

  void count(std::uint64_t CacheCounters::* counter) {
    const std::lock_guard lock(mutex);
    ++(stats.*counter);
  }

  CacheCounters counted() {
    const std::lock_guard lock(mutex);
    CacheCounters now = stats;
    now.pruned = disk.pruned();
    return now;
  }

  /// Adds what is new to the folder's totals. A process that is killed takes with it only what it found.
  void tell_totals() {
    CacheCounters news;
    {
      const std::lock_guard lock(mutex);
      CacheCounters now = stats;
      now.pruned = disk.pruned();
      news = now - told;
      told = now;
    }
    if (news != CacheCounters{}) disk.add_totals(news);
  }

  CacheEntry compile_first(const Lookup& lookup,
                           const std::function<CompileResult(const CacheKey&)>& compile) {
    {
      const std::lock_guard lock(mutex);
      ++stats.misses;
      ++stats.compiles;
    }
    CacheEntry entry = store(lookup, compile(*lookup.key));
    tell_totals();
    return entry;
  }

  CacheEntry store(const Lookup& lookup, CompileResult result) {
    if (result.binary.empty())
      throw codegen::Error(ADAMAS_INTERNAL, "compiler", result.compiler, "must return a binary or an error");
    const EntryInfo info = info_of(lookup, result);
    auto binary = std::make_shared<const std::vector<std::byte>>(std::move(result.binary));
    // What is returned is what was compiled, never what could be read back: another process may have replaced
    // or removed the file by now.
    CacheEntry entry{.binary = binary,
                     .target = lookup.key->target,
                     .compiler = result.compiler,
                     .compile_ms = result.milliseconds,
                     .path = disk.publish(info, lookup.text, *binary),
                     .origin = CacheEntry::Origin::compiled};
    const std::lock_guard lock(mutex);
    memory.insert_or_assign(lookup.digest, entry);
    return entry;
  }

  void end_flight(const std::string& digest) {
    const std::lock_guard lock(mutex);
    in_flight.erase(digest);
  }

  CacheEntry get(const std::vector<Lookup>& lookups,
                 const std::function<CompileResult(const CacheKey&)>& compile) {
    const Lookup& first = lookups.front();
    std::promise<CacheEntry> promise;
    {
      std::unique_lock lock(mutex);
      if (auto entry = find_in_memory(lookups)) return *entry;
      if (const auto flight = in_flight.find(first.digest); flight != in_flight.end()) {
        const std::shared_future<CacheEntry> future = flight->second;
        lock.unlock();
        CacheEntry entry = future.get();
        entry.origin = CacheEntry::Origin::memory;
        lock.lock();
        ++stats.hits_memory;
        return entry;
      }
      in_flight.emplace(first.digest, promise.get_future().share());
    }
    try {
      auto entry = find_stored(lookups);
      if (!entry) {
        StateFile lock = disk.open_state();
        entry = wait_for_turn(lookups, lock);
        if (!entry) entry = compile_first(first, compile);
      }
      end_flight(first.digest);
      promise.set_value(*entry);
      return *entry;
    } catch (...) {
      // Erased before the waiters wake: their next call starts anew.
      end_flight(first.digest);
      promise.set_exception(std::current_exception());
      throw;
    }
  }
};

Cache::Cache(CacheOptions options) : impl_(std::make_unique<Impl>(options)) {}

Cache::~Cache() {
  // A child after fork has counted nothing, and another thread may have held a lock when it was made.
  if (::getpid() != impl_->owner_process) return;
  try {
    impl_->tell_totals();
  } catch (const std::exception&) {
    // Out of memory, for one: counts are lost, which is no reason to end the host's process.
  }
}

std::string Cache::default_directory() {
  if (const std::string own = environment("ADAMAS_CACHE_DIR"); !own.empty()) return own;
  // Relative values of these two are invalid by the XDG rules: they would put a cache wherever the process
  // stands.
  if (const std::string xdg = environment("XDG_CACHE_HOME"); xdg.starts_with('/')) return xdg + "/adamas";
  if (const std::string home = environment("HOME"); home.starts_with('/')) return home + "/.cache/adamas";
  return {};
}

CacheEntry Cache::get(const std::vector<CacheKey>& keys,
                      const std::function<CompileResult(const CacheKey&)>& compile) {
  if (keys.empty())
    throw codegen::Error(ADAMAS_INTERNAL, "cache keys", "none", "must name at least one target");
  return impl_->get(lookups_of(keys), compile);
}

CacheEntry Cache::put(const CacheKey& key, CompileResult result) {
  return impl_->store(lookups_of({key}).front(), std::move(result));
}

CacheEntry Cache::find(const std::vector<CacheKey>& keys) {
  const std::vector<Lookup> lookups = lookups_of(keys);
  {
    const std::lock_guard lock(impl_->mutex);
    if (auto entry = impl_->find_in_memory(lookups)) return *entry;
  }
  if (auto entry = impl_->find_stored(lookups)) return *entry;
  const std::lock_guard lock(impl_->mutex);
  ++impl_->stats.misses;
  return {};
}

void Cache::reject(const CacheKey& key, const CacheEntry& entry) {
  if (!entry.binary) return;
  const std::string text = key.text();
  const std::string digest = hex(digest_of(text));
  {
    const std::lock_guard lock(impl_->mutex);
    ++impl_->stats.rejected;
    impl_->refused.emplace(digest, digest_of(*entry.binary));
    const auto found = impl_->memory.find(digest);
    // Another thread may have compiled a replacement already.
    if (found != impl_->memory.end() && *found->second.binary == *entry.binary) impl_->memory.erase(found);
  }
  impl_->disk.remove(digest, text, *entry.binary);
}

const std::string* Cache::packed_tuning(const std::string& target, const std::string& spec) const {
  for (const auto& pack : impl_->packs)
    if (const std::string* tuning = pack->tuning(target, spec)) return tuning;
  return nullptr;
}

const std::vector<std::shared_ptr<const Pack>>& Cache::packs() const { return impl_->packs; }

void Cache::count_fallback() { impl_->count(&CacheCounters::fallbacks); }

const std::string& Cache::directory() const { return impl_->disk.directory(); }

std::uint64_t Cache::max_bytes() const { return impl_->disk.max_bytes(); }

CacheCounters Cache::counters() const { return impl_->counted(); }

CacheStats Cache::stats() const {
  const Disk::Usage usage = impl_->disk.usage();
  CacheStats stats;
  static_cast<CacheCounters&>(stats) = impl_->counted();
  stats.entries = usage.entries;
  stats.bytes = usage.bytes;
  return stats;
}

CacheTotals Cache::totals() const { return impl_->disk.totals(); }

std::vector<CacheListing> Cache::list() const { return impl_->disk.list(); }

void Cache::visit(const std::function<void(const CheckedEntry&)>& visit) const { impl_->disk.visit(visit); }

std::uint64_t Cache::clear() { return impl_->disk.clear(); }

PruneReport Cache::prune(std::optional<std::uint64_t> max_bytes, std::chrono::seconds unused_for) {
  return impl_->disk.prune(max_bytes ? *max_bytes : impl_->disk.max_bytes(), unused_for);
}

}  // namespace adamas::runtime
