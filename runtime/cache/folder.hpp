// Folders and files of the cache, opened so that nobody else's can take their place: relative to a folder's
// descriptor, never through a symbolic link, with owner and mode checked on what was really opened.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/file_descriptor.hpp"

namespace adamas::runtime {

/// A folder or file that was opened, or why it was not.
struct Opened {
  FileDescriptor descriptor;
  struct stat status{};
  int error = 0;        ///< errno of the failed call; EPERM when the checks refused it
  std::string problem;  ///< what is wrong and how to mend it; "" when open
  explicit operator bool() const { return static_cast<bool>(descriptor); }
};

/// Creates the folder and its missing parents with mode 0700.
/// @return 0, or the errno of the step that failed
int create_folder(const std::string& path);

/// Opens a folder: a real one, owned by this user or root, writable by nobody else. Cached kernels are code
/// that this process will run, so who can write there can run code as this user.
/// @param parent  descriptor that `path` is relative to, or AT_FDCWD
Opened open_folder(int parent, const std::string& path, const std::string& shown_path);

/// Opens a regular file under the same rules, for reading.
Opened open_file(int folder, const std::string& name, const std::string& shown_path);

/// Opens a file of our own for reading and writing, empty if it was not there. Mode 0600.
Opened open_or_create_file(int folder, const std::string& name, const std::string& shown_path);

/// Sets the time of last use of a file that was opened with this status: its access time, which nothing else
/// here changes.
void mark_used(int folder, const std::string& name, const struct stat& status);

/// Bytes [offset, offset + size) of the file; nothing when it ends earlier or cannot be read.
std::optional<std::vector<std::byte>> read_bytes(const FileDescriptor&, std::uint64_t offset,
                                                 std::size_t size);

/// Makes `name` in the folder hold exactly these bytes, at once for every reader and lasting: temporary file
/// in the same folder, fsync, rename, fsync of the folder.
/// @param mode  less the umask
/// @return 0, or the errno of the step that failed; then nothing has changed
int publish_file(int folder, const std::string& name, std::span<const std::byte> bytes, mode_t mode = 0600);

/// Whether `name` was made by publish_file and left behind by a process that died in it.
bool is_temporary_name(std::string_view name);

/// Removes the file if it is still the one that was opened.
bool remove_if_unchanged(int folder, const std::string& name, const struct stat& opened);

/// Calls `visit` with every name in the folder except "." and "..".
void for_each_name(int folder, const std::function<void(const std::string&)>& visit);

std::string error_text(int error_number);

}  // namespace adamas::runtime
