// SharedObject: a shared object that is only bytes in memory, loaded into the process.
//
// It goes through a memfd, so a cache on a noexec file system, or none at all, makes no difference, and
// nobody can swap the file between the check and the load.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace adamas::runtime {

/// Checks that the image is a whole ELF shared object for this machine: identity, and that header tables and
/// segments lie inside it. The loader trusts all of these. (Damage inside code or data is the cache
/// checksum's affair.)
/// @param name  used in error texts
/// @throws codegen::Error(ADAMAS_DEVICE_ERROR)
void check_shared_object(const std::string& name, std::span<const std::byte> image);

class SharedObject {
 public:
  /// Checks and loads; all symbols are bound at once, none becomes visible to other objects.
  /// @param name  shown by profilers and debuggers as /memfd:name
  /// @throws codegen::Error(ADAMAS_DEVICE_ERROR)
  SharedObject(const std::string& name, std::span<const std::byte> image);
  ~SharedObject();
  SharedObject(const SharedObject&) = delete;
  SharedObject& operator=(const SharedObject&) = delete;

  /// Address of an exported symbol, null if it has none of that name.
  void* symbol(const std::string& symbol_name) const;

 private:
  void* handle_ = nullptr;
};

}  // namespace adamas::runtime
