// Loading a shared object from memory: check, memfd, dlopen.
#include "runtime/device/shared_object.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/file_descriptor.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;

#if defined(__x86_64__)
constexpr Elf64_Half kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half kMachine = EM_AARCH64;
#endif

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U  // Linux 6.3; older kernels refuse it and need it not
#endif

[[noreturn]] void refuse(const std::string& name, const std::string& rule, const std::string& hint = {}) {
  throw Error(ADAMAS_DEVICE_ERROR, "kernel", name, rule, hint);
}

bool lies_inside(std::uint64_t offset, std::uint64_t bytes, std::uint64_t file_bytes) {
  return offset <= file_bytes && bytes <= file_bytes - offset;
}

template <typename T>
T read_at(std::span<const std::byte> image, std::uint64_t offset) {
  T value;
  std::memcpy(&value, image.data() + offset, sizeof value);
  return value;
}

FileDescriptor to_memory_file(const std::string& name, std::span<const std::byte> image) {
  constexpr std::size_t kLongestName = 200;  // the kernel allows 249
  const std::string shown = name.substr(0, kLongestName);
  FileDescriptor file(::memfd_create(shown.c_str(), MFD_CLOEXEC | MFD_EXEC));
  if (!file && errno == EINVAL) file = FileDescriptor(::memfd_create(shown.c_str(), MFD_CLOEXEC));
  if (!file)
    refuse(name, "needs a file in memory: " + std::generic_category().message(errno),
           "allow memfd_create for this process (seccomp, sysctl vm.memfd_noexec)");
  while (!image.empty()) {
    const ssize_t written = ::write(file.get(), image.data(), image.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) refuse(name, "cannot be copied to memory: " + std::generic_category().message(errno));
    image = image.subspan(static_cast<std::size_t>(written));
  }
  return file;
}

/// A path that leads to the file and that no loaded object has as its name. The loader compares names first,
/// and a number whose descriptor was closed after an earlier load would bring that earlier object.
std::string unused_path(const std::string& name, FileDescriptor& file) {
  for (;;) {
    const std::string path = fmt::format("/proc/self/fd/{}", file.get());
    void* const loaded = ::dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (loaded == nullptr) return path;
    ::dlclose(loaded);
    file = FileDescriptor(::fcntl(file.get(), F_DUPFD_CLOEXEC, file.get() + 1));
    if (!file) refuse(name, "cannot be opened: " + std::generic_category().message(errno), "raise ulimit -n");
  }
}

}  // namespace

void check_shared_object(const std::string& name, std::span<const std::byte> image) {
  if (image.size() < sizeof(Elf64_Ehdr)) refuse(name, "must be a shared object, is shorter than its header");
  const auto header = read_at<Elf64_Ehdr>(image, 0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0)
    refuse(name, "must be a shared object, has no ELF header");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
    refuse(name, "must be a 64-bit little-endian object");
  if (header.e_machine != kMachine)
    refuse(name, fmt::format("must be made for this machine (ELF machine {}), is for {}", kMachine,
                             header.e_machine));
  if (header.e_type != ET_DYN || header.e_version != EV_CURRENT) refuse(name, "must be a shared object");

  if (header.e_phentsize != sizeof(Elf64_Phdr) ||
      !lies_inside(header.e_phoff, std::uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), image.size()))
    refuse(name, "has program headers outside the file");
  // Sections come last in the file and are not loaded: where they end tells whether anything was cut off.
  if (!lies_inside(header.e_shoff, std::uint64_t{header.e_shnum} * header.e_shentsize, image.size()))
    refuse(name, "is cut short");

  bool has_code = false;
  bool has_dynamic = false;
  for (Elf64_Half i = 0; i < header.e_phnum; ++i) {
    const auto segment = read_at<Elf64_Phdr>(image, header.e_phoff + i * sizeof(Elf64_Phdr));
    if (segment.p_type != PT_LOAD && segment.p_type != PT_DYNAMIC) continue;
    constexpr std::uint64_t kLargestSegment = std::uint64_t{1} << 32;
    if (!lies_inside(segment.p_offset, segment.p_filesz, image.size()) ||
        segment.p_memsz < segment.p_filesz || !lies_inside(segment.p_vaddr, segment.p_memsz, kLargestSegment))
      refuse(name, fmt::format("has segment {} outside the file", i));
    has_code |= segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0;
    has_dynamic |= segment.p_type == PT_DYNAMIC;
  }
  if (!has_code || !has_dynamic) refuse(name, "must be a shared object with code");
}

SharedObject::SharedObject(const std::string& name, std::span<const std::byte> image) {
  check_shared_object(name, image);
  FileDescriptor file = to_memory_file(name, image);
  handle_ = ::dlopen(unused_path(name, file).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr) {
    const char* reason = ::dlerror();
    refuse(name, fmt::format("was refused by the loader: {}", reason == nullptr ? "no reason given" : reason),
           "/proc must be mounted");
  }
}

SharedObject::~SharedObject() {
  if (handle_ != nullptr) ::dlclose(handle_);
}

void* SharedObject::symbol(const std::string& symbol_name) const {
  return ::dlsym(handle_, symbol_name.c_str());
}

}  // namespace adamas::runtime
