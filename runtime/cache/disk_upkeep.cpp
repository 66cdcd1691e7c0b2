// The cache folder as a whole: listing, checking, size, pruning, clearing, totals.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <limits>
#include <utility>

#include "codegen/format.hpp"
#include "runtime/cache/digest.hpp"
#include "runtime/cache/disk.hpp"

namespace adamas::runtime {
namespace {

std::int64_t microseconds(const struct timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000 + time.tv_nsec / 1000;
}

std::int64_t now_us() {
  struct timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return microseconds(now);
}

CacheListing listing_of(EntryInfo info, const struct stat& status, const std::string& path) {
  return {.digest = std::move(info.digest),
          .unit = std::move(info.unit),
          .spec = std::move(info.spec),
          .tuning = std::move(info.tuning),
          .target = std::move(info.target),
          .compiler = std::move(info.compiler),
          .bytes = static_cast<std::uint64_t>(status.st_size),
          .compile_ms = info.compile_ms,
          .created_us = info.created_us,
          .used_us = microseconds(status.st_atim),
          .path = path};
}

/// Longer than any process takes to write one file.
constexpr std::int64_t kLeftBehindUs = std::int64_t{3600} * 1'000'000;

}  // namespace

void Disk::for_each_shard(const std::function<void(int, const std::string&)>& visit) {
  if (directory_.empty()) return;
  const Opened root = open_root();
  if (!root) return;
  for_each_name(root.descriptor.get(), [&](const std::string& name) {
    if (!is_shard_name(name)) return;
    if (const Opened shard = open_shard(root, name)) visit(shard.descriptor.get(), name);
  });
}

std::vector<CacheListing> Disk::list() {
  std::vector<CacheListing> entries;
  for_each_shard([&](int shard, const std::string& shard_name) {
    for_each_name(shard, [&](const std::string& name) {
      if (!is_entry_name(name)) return;
      const std::string path = path_of(shard_name, name);
      const Opened file = open_file(shard, name, path);
      if (!file) return;
      const auto bytes = static_cast<std::uint64_t>(file.status.st_size);
      const auto header = read_bytes(file.descriptor, 0, std::min<std::uint64_t>(bytes, kEntryHeaderBytes));
      const auto length = header ? metadata_bytes(*header, bytes) : std::nullopt;
      const auto text = length ? read_bytes(file.descriptor, kEntryHeaderBytes, *length) : std::nullopt;
      if (!text) return;
      auto info = decode_metadata({reinterpret_cast<const char*>(text->data()), text->size()});
      if (info) entries.push_back(listing_of(*std::move(info), file.status, path));
    });
  });
  std::ranges::sort(entries, {},
                    [](const CacheListing& entry) { return std::pair(entry.created_us, entry.path); });
  return entries;
}

void Disk::visit(const std::function<void(const CheckedEntry&)>& visit) {
  for_each_shard([&](int shard, const std::string& shard_name) {
    for_each_name(shard, [&](const std::string& name) {
      if (!is_entry_name(name)) return;
      const std::string path = path_of(shard_name, name);
      const Opened file = open_file(shard, name, path);
      if (!file && file.error == ENOENT) return;
      CheckedEntry checked;
      checked.listing.path = path;
      const std::uint64_t bytes = file ? static_cast<std::uint64_t>(file.status.st_size) : 0;
      checked.listing.bytes = bytes;
      const auto content =
          file && bytes <= kMaxEntryBytes ? read_bytes(file.descriptor, 0, bytes) : std::nullopt;
      const DecodedEntry entry = content ? decode_entry(*content) : DecodedEntry{};
      if (entry.state == EntryState::foreign) {
        checked.state = CheckedEntry::State::foreign;
      } else if (entry.state == EntryState::good && name.starts_with(hex(digest_of(entry.key_text)))) {
        checked.state = CheckedEntry::State::good;
        checked.listing = listing_of(entry.info, file.status, path);
        checked.options = entry.info.options;
        checked.key_text = entry.key_text;
        checked.binary = entry.binary;
      }
      visit(checked);
    });
  });
}

Disk::Usage Disk::usage() {
  Usage usage;
  for_each_shard([&](int shard, const std::string&) {
    for_each_name(shard, [&](const std::string& name) {
      struct stat status{};
      if (!is_entry_name(name) || ::fstatat(shard, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
      ++usage.entries;
      usage.bytes += static_cast<std::uint64_t>(status.st_size);
    });
  });
  return usage;
}

std::uint64_t Disk::clear() {
  std::uint64_t removed = 0;
  for_each_shard([&](int shard, const std::string&) {
    for_each_name(shard, [&](const std::string& name) {
      if (!is_entry_name(name) && !is_temporary_name(name)) return;
      if (::unlinkat(shard, name.c_str(), 0) == 0 && is_entry_name(name)) ++removed;
    });
  });
  // An empty shard goes too; rmdir leaves one that holds anything else.
  if (const Opened root = directory_.empty() ? Opened{} : open_root()) {
    for_each_name(root.descriptor.get(), [&](const std::string& name) {
      if (is_shard_name(name)) ::unlinkat(root.descriptor.get(), name.c_str(), AT_REMOVEDIR);
    });
  }
  return removed;
}

PruneReport Disk::prune(std::uint64_t max_bytes, std::chrono::seconds unused_for) {
  struct Used {
    std::int64_t at_us;
    std::string shard, name;
    std::uint64_t bytes;
  };
  const std::int64_t now = now_us();
  PruneReport report;
  std::vector<Used> entries;
  for_each_shard([&](int shard, const std::string& shard_name) {
    for_each_name(shard, [&](const std::string& name) {
      struct stat status{};
      const bool temporary = is_temporary_name(name);
      if ((!temporary && !is_entry_name(name)) ||
          ::fstatat(shard, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0)
        return;
      if (temporary) {
        if (now - microseconds(status.st_mtim) > kLeftBehindUs) ::unlinkat(shard, name.c_str(), 0);
        return;
      }
      const auto bytes = static_cast<std::uint64_t>(status.st_size);
      entries.push_back({microseconds(status.st_atim), shard_name, name, bytes});
      ++report.kept;
      report.kept_bytes += bytes;
    });
  });
  std::ranges::sort(entries, {}, &Used::at_us);

  const std::int64_t oldest = unused_for.count() > 0 ? now - unused_for.count() * 1'000'000
                                                     : std::numeric_limits<std::int64_t>::min();
  const Opened root = directory_.empty() ? Opened{} : open_root();
  for (const Used& entry : entries) {
    const bool too_much = max_bytes != 0 && report.kept_bytes > max_bytes;
    if (!root || (!too_much && entry.at_us >= oldest)) break;
    const Opened shard = open_shard(root, entry.shard);
    if (!shard || ::unlinkat(shard.descriptor.get(), entry.name.c_str(), 0) != 0) continue;
    ++report.removed;
    report.removed_bytes += entry.bytes;
    --report.kept;
    report.kept_bytes -= entry.bytes;
  }
  pruned_ += report.removed;
  return report;
}

void Disk::prune_if_due() {
  if (max_bytes_ == 0) return;
  StateFile file = open_state();
  const std::int64_t now = now_us();
  const auto due = [&] {
    const std::int64_t interval =
        std::chrono::duration_cast<std::chrono::microseconds>(prune_interval_).count();
    const std::int64_t pruned = file.read().pruned_us;
    return now - pruned >= interval || pruned > now;  // a clock may have been set back
  };
  // Whoever holds the lock prunes; the others need not wait for it.
  if (!file || !due() || file.try_lock(kLockOfPrune) != StateFile::Attempt::taken || !due()) return;
  if (!file.lock_briefly(kLockOfContents)) return;
  FolderState state = file.read();
  state.pruned_us = now;
  file.write(state);
  file.unlock(kLockOfContents);
  const PruneReport report = prune(max_bytes_, std::chrono::seconds(0));
  if (report.removed != 0)
    inform(fmt::format(
        "cache folder {}: removed {} least recently used entries ({} bytes) to stay below {} bytes",
        directory_, report.removed, report.removed_bytes, max_bytes_));
}

void Disk::add_totals(const CacheCounters& counted) {
  StateFile file = open_state();
  if (!file || !file.lock_briefly(kLockOfContents)) return;
  FolderState state = file.read();
  if (state.totals.since_us == 0) state.totals.since_us = now_us();
  state.totals += counted;
  file.write(state);
}

CacheTotals Disk::totals() { return open_state().read().totals; }

}  // namespace adamas::runtime
