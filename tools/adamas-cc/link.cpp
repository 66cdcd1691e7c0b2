// Links in memory and holds the result to the rule: extern "C" entries out, a few functions of libc in.
//
// The shared object names no library at all (no DT_NEEDED), so making it needs no development files and its
// bytes don't depend on the machine: the functions it may need are in libc, which every process that can
// dlopen has already.
#include "tools/adamas-cc/link.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string_view>

#include "lld/Common/Driver.h"
#include "llvm/Object/ELFObjectFile.h"
#include "llvm/Support/raw_ostream.h"

LLD_HAS_DRIVER(elf)

namespace adamas::tools::cc {
namespace {

// LLVM calls these of its own accord, even in freestanding code.
constexpr std::array<std::string_view, 4> kAllowed = {"memcpy", "memmove", "memset", "memcmp"};

/// An anonymous file, which lld and we reach through descriptors.
class MemoryFile {
 public:
  explicit MemoryFile(const char* name) : fd_(memfd_create(name, MFD_CLOEXEC)) {
    if (fd_ < 0) fail("memfd_create");
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int fd() const { return fd_; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

  void write(llvm::ArrayRef<char> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) fail("write to memory file");
      if (n > 0) bytes = bytes.drop_front(static_cast<std::size_t>(n));
    }
  }

  void read_all(llvm::SmallVectorImpl<char>& out) const {
    struct stat facts;
    if (fstat(fd_, &facts) != 0) fail("fstat of memory file");
    out.resize_for_overwrite(static_cast<std::size_t>(facts.st_size));
    for (std::size_t done = 0; done < out.size();) {
      const ssize_t n = pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(done));
      if (n == 0 || (n < 0 && errno != EINTR)) fail("read of memory file");
      if (n > 0) done += static_cast<std::size_t>(n);
    }
  }

 private:
  [[noreturn]] static void fail(const char* what) {
    throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
  }

  int fd_;
};

/// Standard output is the given file for as long as this lives. lld writes "-o -" straight to descriptor 1.
class RedirectedStdout {
 public:
  explicit RedirectedStdout(int fd) : saved_(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) {
    if (saved_ < 0 || dup2(fd, STDOUT_FILENO) < 0) {
      throw std::runtime_error(std::string("redirecting standard output: ") + std::strerror(errno));
    }
  }
  ~RedirectedStdout() {
    dup2(saved_, STDOUT_FILENO);
    close(saved_);
  }
  RedirectedStdout(const RedirectedStdout&) = delete;
  RedirectedStdout& operator=(const RedirectedStdout&) = delete;

 private:
  int saved_;
};

bool may_be_undefined(llvm::StringRef name, bool sanitized) {
  if (std::find(kAllowed.begin(), kAllowed.end(), std::string_view(name)) != kAllowed.end()) return true;
  return sanitized && (name.starts_with("__asan_") || name.starts_with("__ubsan_") ||
                       name.starts_with("__tsan_") || name.starts_with("__sanitizer_"));
}

/// Appends one line for each symbol that breaks the rule.
bool check_symbols(llvm::ArrayRef<char> shared, bool sanitized, std::string& diagnostics) {
  const llvm::MemoryBufferRef buffer(llvm::StringRef(shared.data(), shared.size()), "kernel.so");
  auto file = llvm::object::ObjectFile::createELFObjectFile(buffer);
  if (!file) {
    diagnostics += "error: lld's output: " + llvm::toString(file.takeError()) + "\n";
    return false;
  }
  bool ok = true;
  const auto refuse = [&](llvm::StringRef name, const char* why) {
    diagnostics += ("error: symbol " + name + ": " + why + "\n").str();
    ok = false;
  };
  for (const auto& symbol :
       llvm::cast<llvm::object::ELFObjectFileBase>(file->get())->getDynamicSymbolIterators()) {
    auto name = symbol.getName();
    auto flags = symbol.getFlags();
    if (!name || !flags) {
      diagnostics += "error: lld's output has a damaged symbol table\n";
      return false;
    }
    if (name->empty()) continue;
    if (*flags & llvm::object::SymbolRef::SF_Undefined) {
      if (!may_be_undefined(*name, sanitized)) {
        refuse(*name,
               "is undefined; kernels may need only memcpy, memmove, memset and memcmp (for mathematics and "
               "half floats use builtins that become instructions, or define the function in the source)");
      }
    } else if (name->starts_with("_Z")) {
      refuse(*name, "is exported with a C++ name; entries must be extern \"C\"");
    }
  }
  return ok;
}

}  // namespace

bool link_shared(llvm::ArrayRef<char> object, bool sanitized, std::string& diagnostics,
                 llvm::SmallVectorImpl<char>& out) {
  MemoryFile input("object");
  MemoryFile output("shared");
  input.write(object);
  const std::string path = input.path();
  llvm::raw_string_ostream log(diagnostics);
  bool linked = false;
  {
    RedirectedStdout redirect(output.fd());
    // No build id: the bytes are their own identity. One thread: starting a pool costs more than a kernel's
    // link.
    const char* arguments[] = {
        "ld.lld",      "-shared",          "-nostdlib",      "-Bsymbolic",      "-z",          "now", "-z",
        "noexecstack", "--hash-style=gnu", "--eh-frame-hdr", "--build-id=none", "--threads=1", "-o",  "-",
        path.c_str()};
    linked = lld::lldMain(arguments, log, log, {{lld::Gnu, &lld::elf::link}}).retCode == 0;
  }
  log.flush();
  if (!linked) return false;
  output.read_all(out);
  return check_symbols(out, sanitized, diagnostics);
}

}  // namespace adamas::tools::cc
