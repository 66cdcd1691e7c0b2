// CompileError: the message, and the dump of the refused source that it points to.
#include "runtime/compile/compiler.hpp"

#define XXH_INLINE_ALL
#include <fcntl.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

constexpr std::size_t kLogBytesInMessage = 4096;

std::filesystem::path dump_folder() {
  if (const char* folder = secure_getenv("ADAMAS_DUMP_DIR"); folder && *folder) return folder;
  if (const char* cache = secure_getenv("XDG_CACHE_HOME"); cache && *cache == '/') {
    return std::filesystem::path(cache) / "adamas" / "failed";
  }
  if (const char* home = secure_getenv("HOME"); home && *home == '/') {
    return std::filesystem::path(home) / ".cache" / "adamas" / "failed";
  }
  return {};
}

std::string errno_text() { return std::strerror(errno); }

/// Makes the folder and those above it; the last one private, since sources may tell what a host is doing.
/// @return  empty, or why not
std::string make_private_folder(const std::filesystem::path& folder) {
  std::error_code failure;
  if (std::filesystem::is_directory(folder, failure)) return {};
  std::filesystem::create_directories(folder, failure);
  if (failure) return failure.message();
  std::filesystem::permissions(folder, std::filesystem::perms::owner_all, failure);
  return failure ? failure.message() : std::string();
}

/// Writes beside the file, then renames over it, so that nobody sees half a file.
/// @return  empty, or why not
std::string write_atomically(const std::filesystem::path& file, const std::string& text) {
  std::string temporary = file.string() + ".XXXXXX";
  const int fd = mkostemp(temporary.data(), O_CLOEXEC);  // mode 0600
  if (fd < 0) return errno_text();
  std::string failure;
  for (std::size_t done = 0; done < text.size() && failure.empty();) {
    const ssize_t n = write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) failure = errno_text();
    if (n > 0) done += static_cast<std::size_t>(n);
  }
  if (close(fd) != 0 && failure.empty()) failure = errno_text();
  if (failure.empty() && rename(temporary.c_str(), file.c_str()) != 0) failure = errno_text();
  if (!failure.empty()) unlink(temporary.c_str());
  return failure;
}

std::string commented(const std::string& text) {
  std::string lines = "// ";
  for (const char c : text) {
    lines += c;
    if (c == '\n') lines += "// ";
  }
  return lines + "\n";
}

std::string message_log(const std::string& log) {
  if (log.empty()) return "(the compiler gave no log)";
  if (log.size() <= kLogBytesInMessage) return log;
  return fmt::format("{}\n... ({} more bytes)", log.substr(0, kLogBytesInMessage),
                     log.size() - kLogBytesInMessage);
}

}  // namespace

CompileError::Dump CompileError::dump_source(const CompileRequest& request, const std::string& compiler,
                                             const std::vector<std::string>& options,
                                             const std::string& log) {
  const std::filesystem::path folder = dump_folder();
  if (folder.empty()) return {"", "no folder for it: set ADAMAS_DUMP_DIR"};
  if (const std::string why = make_private_folder(folder); !why.empty())
    return {"", folder.string() + ": " + why};

  // Comments at the end, so that the log's line numbers hold. The name follows the content: one file a
  // failure.
  const std::string text =
      request.source + "\n" +
      commented(fmt::format("compiler: {}\ntarget: {}\noptions: {}\nspec: {}\nlog:\n{}", compiler,
                            request.target, fmt::join(options, " "), request.spec_text, log));
  const std::filesystem::path name = std::filesystem::path(request.name).filename();
  const std::filesystem::path file =
      folder / fmt::format("{}-{:016x}{}", name.empty() ? "kernel" : name.stem().string(),
                           XXH3_64bits(text.data(), text.size()), name.extension().string());
  if (const std::string why = write_atomically(file, text); !why.empty())
    return {"", file.string() + ": " + why};
  return {file.string(), ""};
}

CompileError::CompileError(const CompileRequest& request, const std::string& compiler,
                           std::vector<std::string> options, std::string log)
    : CompileError(request, compiler, options, log, dump_source(request, compiler, options, log)) {}

CompileError::CompileError(const CompileRequest& request, const std::string& compiler,
                           std::vector<std::string> options, std::string log, Dump dump)
    : Error(ADAMAS_COMPILE_FAILED, "source", request.name,
            fmt::format("{} refused it for target {}, options [{}], spec [{}]:\n{}", compiler, request.target,
                        fmt::join(options, " "), request.spec_text, message_log(log)),
            dump.path.empty() ? "the source could not be written for inspection: " + dump.failure
                              : "the source is in " + dump.path),
      log_(std::move(log)),
      spec_(request.spec_text),
      options_(std::move(options)),
      dump_(std::move(dump)) {}

}  // namespace adamas::runtime
