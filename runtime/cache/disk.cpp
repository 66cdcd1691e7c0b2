// The cache folder: looking up, publishing and removing single entries. The folder as a whole:
// disk_upkeep.cpp.
#include "runtime/cache/disk.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "codegen/format.hpp"
#include "runtime/cache/digest.hpp"

namespace adamas::runtime {
namespace {

constexpr std::string_view kSuffix = ".adamas";
constexpr std::size_t kShardDigits = 2;
constexpr std::size_t kDigestDigits = 32;
constexpr std::size_t kCompilerDigits = 16;

bool is_hex(std::string_view text) {
  return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

std::string entry_name(const EntryInfo& info) {
  return fmt::format("{}.{}{}", info.digest, hex(digest_of(info.compiler)).substr(0, kCompilerDigits),
                     kSuffix);
}

std::string shard_of(const std::string& digest) { return digest.substr(0, kShardDigits); }

/// Absolute (the working folder may change) and without the slash at the end that would follow a link.
std::string tidy_path(const std::string& directory) {
  if (directory.empty()) return {};
  std::error_code error;
  std::string path = std::filesystem::absolute(directory, error).lexically_normal().string();
  if (error) return directory;
  while (path.size() > 1 && path.back() == '/')
    path.pop_back();
  return path;
}

}  // namespace

bool is_shard_name(std::string_view name) { return name.size() == kShardDigits && is_hex(name); }

bool is_entry_name(std::string_view name) {
  return name.size() == kDigestDigits + 1 + kCompilerDigits + kSuffix.size() &&
         is_hex(name.substr(0, kDigestDigits)) && name[kDigestDigits] == '.' &&
         is_hex(name.substr(kDigestDigits + 1, kCompilerDigits)) && name.ends_with(kSuffix);
}

struct Disk::Candidate {
  std::string name;
  struct stat status{};
  std::vector<std::byte> file;
  DecodedEntry entry;  // views into `file`: stays valid when the vector is moved
};

Disk::Disk(std::string directory, std::uint64_t max_bytes, std::chrono::seconds prune_interval, LogFn log)
    : directory_(tidy_path(directory)),
      max_bytes_(max_bytes),
      prune_interval_(prune_interval),
      log_(std::move(log)) {
  if (!directory_.empty() && !open_root()) directory_.clear();
}

Opened Disk::open_root() {
  // Opened anew for each use: the folder may be removed or replaced while the process runs.
  Opened root = open_folder(AT_FDCWD, directory_, directory_);
  if (!root && root.error == ENOENT) {
    const int error = create_folder(directory_);
    root = open_folder(AT_FDCWD, directory_, directory_);
    if (!root && error != 0)
      root.problem = fmt::format("{} cannot be created: {}", directory_, error_text(error));
  }
  if (!root)
    warn_once("folder",
              fmt::format("cache folder: {}; kernels are kept in memory only (ADAMAS_CACHE_DIR names another "
                          "folder)",
                          root.problem));
  return root;
}

Opened Disk::open_shard(const Opened& root, const std::string& shard) {
  Opened opened = open_folder(root.descriptor.get(), shard, path_of(shard, ""));
  // One that does not exist is merely empty; one that others may write is a trap.
  if (!opened && opened.error != ENOENT)
    warn_once(shard, fmt::format("cache folder: {}; its entries are not used", opened.problem));
  return opened;
}

std::vector<Disk::Candidate> Disk::read_candidates(int shard, const std::string& digest,
                                                   std::string_view key_text) {
  std::vector<Candidate> good;
  for_each_name(shard, [&](const std::string& name) {
    if (!is_entry_name(name) || !name.starts_with(digest)) return;
    const std::string path = path_of(shard_of(digest), name);
    const Opened file = open_file(shard, name, path);
    if (!file) {
      // ENOENT: removed since the folder was read, by a prune or a clear.
      if (file.error != ENOENT) warn_once(name, fmt::format("cache entry: {}; it is not used", file.problem));
      return;
    }
    Candidate candidate{name, file.status, {}, {}};
    const auto size = static_cast<std::uint64_t>(file.status.st_size);
    if (size <= kMaxEntryBytes) {
      if (auto bytes = read_bytes(file.descriptor, 0, size)) {
        candidate.file = std::move(*bytes);
        candidate.entry = decode_entry(candidate.file);
      }
    }
    if (candidate.entry.state == EntryState::foreign) return;
    if (candidate.entry.state == EntryState::good && candidate.entry.key_text == key_text) {
      good.push_back(std::move(candidate));
      return;
    }
    const bool removed = remove_if_unchanged(shard, name, file.status);
    warn_once(name,
              fmt::format("cache entry {} {} and is {}; the kernel counts as missing", path,
                          candidate.entry.state == EntryState::good ? "holds another key" : "is damaged",
                          removed ? "removed" : "ignored"));
  });
  return good;
}

std::optional<Disk::Found> Disk::load(const std::string& digest, std::string_view key_text,
                                      const std::function<bool(std::span<const std::byte>)>& refused) {
  if (directory_.empty()) return std::nullopt;
  const Opened root = open_root();
  if (!root) return std::nullopt;
  const Opened shard = open_shard(root, shard_of(digest));
  if (!shard) return std::nullopt;

  std::vector<Candidate> candidates = read_candidates(shard.descriptor.get(), digest, key_text);
  std::erase_if(candidates, [&](const Candidate& candidate) { return refused(candidate.entry.binary); });
  const auto newest =
      std::max_element(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
        return std::pair(a.entry.info.created_us, a.name) < std::pair(b.entry.info.created_us, b.name);
      });
  if (newest == candidates.end()) return std::nullopt;
  mark_used(shard.descriptor.get(), newest->name, newest->status);
  const std::span<const std::byte> binary = newest->entry.binary;
  return Found{newest->entry.info,
               std::make_shared<const std::vector<std::byte>>(binary.begin(), binary.end()),
               path_of(shard_of(digest), newest->name)};
}

std::string Disk::publish(const EntryInfo& info, std::string_view key_text,
                          std::span<const std::byte> binary) {
  if (directory_.empty()) return {};
  const std::vector<std::byte> file = encode_entry(info, key_text, binary);
  const Opened root = open_root();
  if (!root) return {};
  const std::string shard_name = shard_of(info.digest);
  const std::string path = path_of(shard_name, entry_name(info));
  Opened shard = open_folder(root.descriptor.get(), shard_name, path_of(shard_name, ""));
  if (!shard && shard.error == ENOENT) {
    if (::mkdirat(root.descriptor.get(), shard_name.c_str(), S_IRWXU) != 0 && errno != EEXIST)
      shard.error = errno;
    else
      shard = open_shard(root, shard_name);
  }
  const int error = shard ? publish_file(shard.descriptor.get(), entry_name(info), file) : shard.error;
  if (error == 0) {
    prune_if_due();
    return path;
  }
  // Tried again for the next kernel (a full disk may have room by then), but said once.
  warn_once("publish",
            fmt::format("cache entry {} cannot be written: {}; kernels are kept in memory only (make room "
                        "or grant access there, or set ADAMAS_CACHE_DIR)",
                        path, error_text(error)));
  return {};
}

void Disk::remove(const std::string& digest, std::string_view key_text, std::span<const std::byte> binary) {
  if (directory_.empty()) return;
  const Opened root = open_root();
  if (!root) return;
  const Opened shard = open_shard(root, shard_of(digest));
  if (!shard) return;
  for (const Candidate& candidate : read_candidates(shard.descriptor.get(), digest, key_text))
    if (std::ranges::equal(candidate.entry.binary, binary))
      remove_if_unchanged(shard.descriptor.get(), candidate.name, candidate.status);
}

StateFile Disk::open_state() {
  if (directory_.empty()) return {};
  const Opened root = open_root();
  if (!root) return {};
  const std::string name(kStateName);
  Opened file = open_or_create_file(root.descriptor.get(), name, path_of(name, ""));
  // Where nothing can be written, publishing says so. What is left is somebody else's file in its place.
  if (!file && file.error == EPERM)
    warn_once(name, fmt::format("cache folder: {}; processes do not wait for each other", file.problem));
  return StateFile(std::move(file.descriptor));
}

std::string Disk::path_of(const std::string& shard, const std::string& name) const {
  return name.empty() ? fmt::format("{}/{}", directory_, shard)
                      : fmt::format("{}/{}/{}", directory_, shard, name);
}

void Disk::warn_once(const std::string& subject, const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    if (!warned_.insert(subject).second) return;
  }
  if (log_) log_(LogLevel::warning, message);
}

void Disk::inform(const std::string& message) const {
  if (log_) log_(LogLevel::info, message);
}

}  // namespace adamas::runtime
