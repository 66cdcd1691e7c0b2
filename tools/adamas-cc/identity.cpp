// The identity is taken from what is loaded, not from what was linked: a distribution may exchange libLLVM
// beneath us.
#include "tools/adamas-cc/identity.hpp"

#include <elf.h>
#include <link.h>

#include <cstddef>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#define XXH_INLINE_ALL
#include <adamas/adamas.h>
#include <xxhash.h>

#include "codegen/format.hpp"
#include "llvm/Config/llvm-config.h"

namespace adamas::tools::cc {
namespace {

/// Adds the GNU build id of one loaded module, if it has one.
void append_build_id(const dl_phdr_info& module, std::string& ids) {
  for (int i = 0; i < module.dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = module.dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(module.dlpi_addr + segment.p_vaddr);
    const char* const end = at + segment.p_memsz;
    const auto padded = [](std::size_t n) { return (n + 3) & ~std::size_t{3}; };
    while (end - at >= static_cast<std::ptrdiff_t>(sizeof(ElfW(Nhdr)))) {
      ElfW(Nhdr) note;
      std::memcpy(&note, at, sizeof note);
      const char* name = at + sizeof note;
      const char* id = name + padded(note.n_namesz);
      if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0) {
        ids.append(id, note.n_descsz);
      }
      at = id + padded(note.n_descsz);
    }
  }
}

int visit_module(dl_phdr_info* module, std::size_t, void* ids) {
  const std::string_view name = module->dlpi_name;
  const bool program = name.empty();
  if (program || name.find("libLLVM") != name.npos || name.find("libclang-cpp") != name.npos) {
    append_build_id(*module, *static_cast<std::string*>(ids));
  }
  return 0;
}

}  // namespace

std::string identity_json() {
  std::string ids = LLVM_VERSION_STRING;
  dl_iterate_phdr(visit_module, &ids);
  return nlohmann::ordered_json{
      {"name", "adamas-cc"},
      {"version", fmt::format("{}.{}.{}", ADAMAS_VERSION_MAJOR, ADAMAS_VERSION_MINOR, ADAMAS_VERSION_PATCH)},
      {"llvm", LLVM_VERSION_STRING},
      {"build_id", fmt::format("{:016x}", XXH3_64bits(ids.data(), ids.size()))}}
      .dump();
}

}  // namespace adamas::tools::cc
