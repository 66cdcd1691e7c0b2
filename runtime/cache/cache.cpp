// Cache: memory in front of the folder in front of the compiler, one compile per key at a time.
#include "runtime/cache/cache.hpp"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <future>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "runtime/cache/digest.hpp"
#include "runtime/cache/disk.hpp"

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

}  // namespace

struct Cache::Impl {
  Impl(std::string directory, LogFn log) : disk(std::move(directory), std::move(log)) {}

  Disk disk;

  std::mutex mutex;  // guards what follows; never held while a file is read or a compiler runs
  // By digest alone: every entry here was made or checked against the whole key text in this process.
  std::unordered_map<std::string, CacheEntry> memory;
  std::unordered_map<std::string, std::shared_future<CacheEntry>> in_flight;  // by digest of the first key
  std::set<std::pair<std::string, Digest>> refused;  // (key, binary) that a loader rejected
  CacheStats stats;

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

  /// A hit goes to memory before anybody sees it.
  std::optional<CacheEntry> find_on_disk(const std::vector<Lookup>& lookups) {
    for (const Lookup& lookup : lookups) {
      const auto is_refused = [&](std::span<const std::byte> binary) {
        const std::lock_guard lock(mutex);
        return !refused.empty() && refused.contains({lookup.digest, digest_of(binary)});
      };
      auto found = disk.load(lookup.digest, lookup.text, is_refused);
      if (!found) continue;
      const CacheEntry entry{.binary = std::move(found->binary),
                             .target = lookup.key->target,
                             .compiler = found->info.compiler,
                             .compile_ms = found->info.compile_ms,
                             .path = found->path,
                             .origin = CacheEntry::Origin::disk};
      const std::lock_guard lock(mutex);
      ++stats.hits_disk;
      memory.insert_or_assign(lookup.digest, entry);
      return entry;
    }
    return std::nullopt;
  }

  CacheEntry compile_first(const Lookup& lookup,
                           const std::function<CompileResult(const CacheKey&)>& compile) {
    {
      const std::lock_guard lock(mutex);
      ++stats.misses;
      ++stats.compiles;
    }
    CompileResult result = compile(*lookup.key);
    if (result.binary.empty())
      throw codegen::Error(ADAMAS_INTERNAL, "compiler", result.compiler, "must return a binary or an error");
    const EntryInfo info = info_of(lookup, result);
    auto binary = std::make_shared<const std::vector<std::byte>>(std::move(result.binary));
    // What is returned is what was compiled, never what could be read back: another process may have replaced
    // or removed the file by now.
    const CacheEntry entry{.binary = binary,
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
      auto entry = find_on_disk(lookups);
      if (!entry) entry = compile_first(first, compile);
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

Cache::Cache(std::optional<std::string> directory, LogFn log) {
  if (!directory) {
    directory = default_directory();
    if (directory->empty() && log)
      log(LogLevel::warning,
          "cache folder: HOME is not set; kernels are kept in memory only (set ADAMAS_CACHE_DIR to a "
          "folder)");
  }
  impl_ = std::make_unique<Impl>(*std::move(directory), std::move(log));
}

Cache::~Cache() = default;

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

CacheEntry Cache::find(const std::vector<CacheKey>& keys) {
  const std::vector<Lookup> lookups = lookups_of(keys);
  {
    const std::lock_guard lock(impl_->mutex);
    if (auto entry = impl_->find_in_memory(lookups)) return *entry;
  }
  if (auto entry = impl_->find_on_disk(lookups)) return *entry;
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

const std::string& Cache::directory() const { return impl_->disk.directory(); }

CacheStats Cache::stats() const {
  const Disk::Usage usage = impl_->disk.usage();
  const std::lock_guard lock(impl_->mutex);
  CacheStats stats = impl_->stats;
  stats.entries = usage.entries;
  stats.bytes = usage.bytes;
  return stats;
}

std::vector<CacheListing> Cache::list() const { return impl_->disk.list(); }

std::uint64_t Cache::clear() { return impl_->disk.clear(); }

}  // namespace adamas::runtime
