// Opening, reading and publishing files of the cache with nothing but descriptors that were checked.
#include "runtime/cache/folder.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <memory>
#include <system_error>

#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

constexpr std::string_view kTemporarySuffix = ".adamas-tmp";

/// Root may write anywhere in any case, so its folders (a cache baked into an image) are as safe as our own.
bool is_trusted_owner(uid_t owner) { return owner == ::geteuid() || owner == 0; }

/// "" or why an open folder or file must not be used.
std::string trust_problem(const struct stat& status, const std::string& path) {
  if (!is_trusted_owner(status.st_uid))
    return fmt::format(
        "{} belongs to user {}, not to user {} or root; chown it, or set ADAMAS_CACHE_DIR to a folder "
        "of your own",
        path, status.st_uid, ::geteuid());
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fmt::format(
        "{} can be written by others (mode {:04o}); chmod go-w it, or set ADAMAS_CACHE_DIR to a folder "
        "of your own",
        path, status.st_mode & 07777);
  return {};
}

Opened open_checked(int parent, const std::string& name, const std::string& shown_path, int flags) {
  Opened opened;
  const auto open_with = [&](int more) {
    opened.descriptor = FileDescriptor(
        ::openat(parent, name.c_str(), flags | more | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!opened.descriptor) opened.error = errno;
  };
  // Reading is no use: the time of last use, by which entries are pruned, is set where an entry is loaded.
  // Only the owner may ask for that.
  open_with(O_NOATIME);
  if (!opened.descriptor && opened.error == EPERM) open_with(0);
  if (!opened.descriptor) {
    // O_DIRECTORY | O_NOFOLLOW reports a link as "not a directory".
    struct stat status{};
    const bool is_link =
        ::fstatat(parent, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(status.st_mode);
    opened.problem = is_link ? fmt::format("{} is a symbolic link; name the folder it leads to", shown_path)
                             : fmt::format("{}: {}", shown_path, error_text(opened.error));
    return opened;
  }
  opened.error = 0;
  if (::fstat(opened.descriptor.get(), &opened.status) != 0) {
    opened.error = errno;
    opened.problem = fmt::format("{}: {}", shown_path, error_text(opened.error));
  } else if (opened.problem = trust_problem(opened.status, shown_path); !opened.problem.empty()) {
    opened.error = EPERM;
  }
  if (!opened.problem.empty()) opened.descriptor = FileDescriptor();
  return opened;
}

Opened open_regular(int folder, const std::string& name, const std::string& shown_path, int flags) {
  // O_NONBLOCK: a FIFO put there must not make us wait for its other end.
  Opened opened = open_checked(folder, name, shown_path, flags | O_NONBLOCK);
  if (opened && !S_ISREG(opened.status.st_mode)) {
    opened.descriptor = FileDescriptor();
    opened.error = EPERM;
    opened.problem = fmt::format("{} is not a regular file", shown_path);
  }
  return opened;
}

std::string temporary_name() {
  // The counter tells threads apart, the process number processes, the random part machines that share the
  // folder.
  static std::atomic<unsigned> counter{0};
  std::uint32_t random = 0;
  if (::getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
    random = 0;  // O_EXCL still tells the names apart.
  return fmt::format(".{}-{}-{:08x}{}", ::getpid(), counter.fetch_add(1), random, kTemporarySuffix);
}

int write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

int write_durably(int folder, const std::string& name, std::span<const std::byte> bytes, mode_t mode) {
  const FileDescriptor file(
      ::openat(folder, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file) return errno;
  if (const int error = write_all(file.get(), bytes)) return error;
  // Before the rename: after a crash the name must never lead to a file whose bytes did not arrive.
  return ::fsync(file.get()) == 0 ? 0 : errno;
}

}  // namespace

int create_folder(const std::string& path) {
  int error = 0;
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), S_IRWXU) != 0 && errno != EEXIST)
      error = errno;
    else
      error = 0;
    if (end == std::string::npos) return error;
  }
}

Opened open_folder(int parent, const std::string& path, const std::string& shown_path) {
  return open_checked(parent, path, shown_path, O_RDONLY | O_DIRECTORY);
}

Opened open_file(int folder, const std::string& name, const std::string& shown_path) {
  return open_regular(folder, name, shown_path, O_RDONLY);
}

Opened open_or_create_file(int folder, const std::string& name, const std::string& shown_path) {
  return open_regular(folder, name, shown_path, O_RDWR | O_CREAT);
}

void mark_used(int folder, const std::string& name, const struct stat& status) {
  // To the minute: an entry that every process of a fleet loads is not written to by each.
  constexpr std::time_t kResolutionSeconds = 60;
  if (std::time(nullptr) - status.st_atim.tv_sec < kResolutionSeconds) return;
  const struct timespec times[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ::utimensat(folder, name.c_str(), times, AT_SYMLINK_NOFOLLOW);  // a read-only folder stays as it is
}

std::optional<std::vector<std::byte>> read_bytes(const FileDescriptor& file, std::uint64_t offset,
                                                 std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t done = 0; done < size;) {
    const ssize_t got =
        ::pread(file.get(), bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return std::nullopt;
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

int publish_file(int folder, const std::string& name, std::span<const std::byte> bytes, mode_t mode) {
  const std::string temporary = temporary_name();
  int error = write_durably(folder, temporary, bytes, mode);
  if (error == 0 && ::renameat(folder, temporary.c_str(), folder, name.c_str()) != 0) error = errno;
  if (error != 0) {
    ::unlinkat(folder, temporary.c_str(), 0);
    return error;
  }
  ::fsync(folder);  // Of use after a power cut only; the entry is published in any case.
  return 0;
}

bool is_temporary_name(std::string_view name) {
  return name.starts_with('.') && name.ends_with(kTemporarySuffix);
}

bool remove_if_unchanged(int folder, const std::string& name, const struct stat& opened) {
  struct stat now{};
  if (::fstatat(folder, name.c_str(), &now, AT_SYMLINK_NOFOLLOW) != 0) return false;
  const bool same = now.st_dev == opened.st_dev && now.st_ino == opened.st_ino &&
                    now.st_size == opened.st_size && now.st_mtim.tv_sec == opened.st_mtim.tv_sec &&
                    now.st_mtim.tv_nsec == opened.st_mtim.tv_nsec;
  return same && ::unlinkat(folder, name.c_str(), 0) == 0;
}

void for_each_name(int folder, const std::function<void(const std::string&)>& visit) {
  // A descriptor of its own: reading a folder moves the position that duplicates share.
  FileDescriptor own(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own) return;
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(own.get()), ::closedir);
  if (!stream) return;
  own.release();
  while (const dirent* item = ::readdir(stream.get())) {
    const std::string name = item->d_name;
    if (name != "." && name != "..") visit(name);
  }
}

std::string error_text(int error_number) { return std::generic_category().message(error_number); }

}  // namespace adamas::runtime
