// The search for NVRTC, the choice by driver version, and loading it together with its builtins.
#include "runtime/compile/nvrtc_library.hpp"

#include <dlfcn.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "codegen/format.hpp"
#include "runtime/device/cuda_driver.hpp"

namespace adamas::runtime {
namespace {

namespace fs = std::filesystem;

constexpr std::array kMajors{13, 12};
constexpr const char* kOverride = "ADAMAS_NVRTC_PATH";
constexpr const char* kInProcess = "this process";
constexpr const char* kSystem = "system library search";

std::string soname(int major) { return fmt::format("libnvrtc.so.{}", major); }

/// 13 for ".../libnvrtc.so.13" and ".../libnvrtc.so.13.0.88"; 0 if the name says nothing.
int major_in(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  constexpr std::string_view stem = "libnvrtc.so.";
  int major = 0;
  if (name.starts_with(stem)) std::from_chars(name.data() + stem.size(), name.data() + name.size(), major);
  return major;
}

std::string canonical(const std::string& path) {
  std::error_code failure;
  const fs::path whole = fs::canonical(path, failure);
  return failure ? std::string() : whole.string();
}

bool is_file(const std::string& path) {
  std::error_code failure;
  return fs::is_regular_file(path, failure);
}

bool is_folder(const std::string& path) {
  std::error_code failure;
  return fs::is_directory(path, failure);
}

std::vector<std::string> matches(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  if (glob(pattern.c_str(), GLOB_ONLYDIR, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  globfree(&found);
  std::reverse(paths.begin(), paths.end());  // newest version first: nvrtc-13 before nvrtc-12
  return paths;
}

/// The file that holds this code (the shared library, or a program that links it statically); "" if unknown.
std::string own_file() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_file), &info) && info.dli_fname && info.dli_fname[0] == '/') {
    return canonical(info.dli_fname);
  }
  return canonical("/proc/self/exe");  // a program's name may be relative to a folder it has left since
}

/// Folders found by walking up are code from places nobody named: only if they belong to root, to this user
/// or to whoever installed this library, and others cannot write there.
bool is_trusted(const std::string& folder, const std::string& own) {
  struct stat there{}, mine{};
  if (stat(folder.c_str(), &there) != 0 || stat(own.c_str(), &mine) != 0) return false;
  const bool known_owner = there.st_uid == 0 || there.st_uid == geteuid() || there.st_uid == mine.st_uid;
  return known_owner && (there.st_mode & S_IWOTH) == 0;
}

using Folders = std::vector<NvrtcSearch::Folder>;

void add_matches(Folders& folders, const std::string& pattern, const char* origin) {
  for (std::string& path : matches(pattern))
    folders.push_back({std::move(path), origin});
}

void add_installed(Folders& folders) {
  const std::string own = own_file();
  if (own.empty()) return;
  const fs::path folder = fs::path(own).parent_path();
  for (const fs::path& beside : {folder, folder / "adamas", folder.parent_path() / "lib" / "adamas"}) {
    folders.push_back({beside.string(), "beside this library"});
  }
  // A build tree (build/release/tools below .deps), or a Python package beside NVIDIA's wheels.
  constexpr int kLevels = 5;
  fs::path parent = folder;
  for (int level = 0; level < kLevels && parent.has_relative_path(); ++level, parent = parent.parent_path()) {
    Folders found;
    add_matches(found, (parent / ".deps/nvrtc-*/lib").string(), "build tree (.deps)");
    add_matches(found, (parent / "nvidia/cu[0-9]*/lib").string(), "Python wheel");
    add_matches(found, (parent / "nvidia/cuda_nvrtc/lib").string(), "Python wheel");
    for (NvrtcSearch::Folder& candidate : found) {
      if (is_trusted(candidate.path, own)) folders.push_back(std::move(candidate));
    }
  }
}

void add_toolkits(Folders& folders) {
  for (const char* variable : {"CUDA_PATH", "CUDA_HOME"}) {
    if (const char* root = secure_getenv(variable); root && *root) {
      for (const char* lib : {"/lib64", "/lib"})
        folders.push_back({std::string(root) + lib, fmt::format("CUDA toolkit ({})", variable)});
    }
  }
  folders.push_back({"/usr/local/cuda/lib64", "CUDA toolkit"});
  add_matches(folders, "/usr/local/cuda-1[0-9]*/lib64", "CUDA toolkit");
}

void add_wheels(Folders& folders) {
  std::vector<std::string> packages;
  for (const char* variable : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const char* root = secure_getenv(variable); root && *root) {
      packages.push_back(std::string(root) + "/lib/python3*/site-packages");
    }
  }
  if (const char* home = secure_getenv("HOME"); home && *home == '/') {
    packages.push_back(std::string(home) + "/.local/lib/python3*/site-packages");
  }
  for (const char* root : {"/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages",
                           "/usr/lib/python3/dist-packages", "/usr/lib/python3*/site-packages"}) {
    packages.push_back(root);
  }
  for (const std::string& package : packages) {
    add_matches(folders, package + "/nvidia/cu[0-9]*/lib", "Python wheel");
    add_matches(folders, package + "/nvidia/cuda_nvrtc/lib", "Python wheel");
  }
}

/// Already in the process, under the names that hosts load: asks without loading.
std::vector<NvrtcCandidate> loaded_already() {
  std::vector<NvrtcCandidate> found;
  for (const int major : kMajors) {
    void* library = dlopen(soname(major).c_str(), RTLD_NOLOAD | RTLD_LAZY);
    if (!library) continue;
    Dl_info info{};
    const void* function = dlsym(library, "nvrtcVersion");
    if (function && dladdr(function, &info) && info.dli_fname) {
      const std::string path = canonical(info.dli_fname);
      if (!path.empty()) found.push_back({.path = path, .origin = kInProcess, .major = major});
    }
    dlclose(library);  // gives back this reference; the host holds its own
  }
  return found;
}

/// NVRTC opens libnvrtc-builtins by bare name when it first compiles, which fails where neither its own
/// RUNPATH nor the system leads there. Opened before, by path, it is found by that name.
/// @return what is wrong, or nothing
std::string load_builtins(const NvrtcLibrary& library) {
  const std::string name = fmt::format("libnvrtc-builtins.so.{}", library.version());
  const std::string beside = (fs::path(library.path).parent_path() / name).string();
  if (dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL) || dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return {};
  return fmt::format(
      "{} is neither beside it nor on the library path; NVRTC comes with it: install both from one "
      "toolkit or wheel",
      name);
}

/// Loads a candidate and notes version or problem in it. @return null if it cannot be used
std::shared_ptr<const NvrtcLibrary> load(NvrtcCandidate& candidate) {
  void* handle = dlopen(candidate.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = dlerror();
    candidate.problem = reason ? reason : "cannot be loaded";
    return nullptr;
  }
  auto library = std::make_shared<NvrtcLibrary>();
  std::string missing;
#define ADAMAS_LOAD(symbol)                                                              \
  library->symbol = reinterpret_cast<decltype(library->symbol)>(dlsym(handle, #symbol)); \
  if (!library->symbol) missing += missing.empty() ? #symbol : ", " #symbol;
  ADAMAS_NVRTC_SYMBOLS(ADAMAS_LOAD)
#undef ADAMAS_LOAD
  if (!missing.empty()) {
    candidate.problem = "is no NVRTC, or too old a one: it lacks " + missing;
    return nullptr;
  }
  Dl_info info{};
  library->path = candidate.path;
  if (dladdr(reinterpret_cast<const void*>(library->nvrtcVersion), &info) && info.dli_fname) {
    if (const std::string real = canonical(info.dli_fname); !real.empty()) library->path = real;
  }
  candidate.path = library->path;
  int count = 0;
  if (library->nvrtcVersion(&library->major, &library->minor) != NVRTC_SUCCESS ||
      library->nvrtcGetNumSupportedArchs(&count) != NVRTC_SUCCESS) {
    candidate.problem = "does not answer nvrtcVersion";
    return nullptr;
  }
  library->architectures.resize(static_cast<std::size_t>(count));
  library->nvrtcGetSupportedArchs(library->architectures.data());
  candidate.major = library->major;
  candidate.minor = library->minor;
  if (library->major < kMajors.back()) {
    candidate.problem =
        fmt::format("is NVRTC {}; {}.0 or newer is needed", library->version(), kMajors.back());
  } else {
    candidate.problem = load_builtins(*library);
  }
  return candidate.problem.empty() ? library : nullptr;
}

bool driver_takes(int driver_version, int major) {
  // The minor version does not matter: binaries run on every driver of the same major version.
  return driver_version == 0 || driver_version / 1000 >= major;
}

/// The order in which candidates of one list are tried.
bool better(const NvrtcCandidate* a, const NvrtcCandidate* b) {
  const bool a_here = a->origin == kInProcess;
  const bool b_here = b->origin == kInProcess;
  if (a_here != b_here) return a_here;
  return a->major != b->major ? a->major > b->major : a < b;
}

std::string how_to_install(int driver_version) {
  const bool both = driver_takes(driver_version, kMajors.front());
  return fmt::format("pip install {}, or install a CUDA toolkit {}, or name the library in {}",
                     both ? "nvidia-cuda-nvrtc" : "nvidia-cuda-nvrtc-cu12", both ? "13" : "12", kOverride);
}

std::string nothing_found(const NvrtcSearch& search, const std::vector<NvrtcCandidate>& candidates) {
  const std::string fix = how_to_install(search.driver_version);
  if (candidates.empty())
    return fmt::format("no NVRTC (libnvrtc.so.13 or libnvrtc.so.12) was found: {}", fix);
  std::string reasons;
  for (const NvrtcCandidate& candidate : candidates) {
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", candidate.path, candidate.problem);
  }
  if (!search.override_path.empty()) {
    return fmt::format("{} leads to no usable NVRTC ({}): correct or unset it", kOverride, reasons);
  }
  return fmt::format("no NVRTC that was found can be used ({}): {}", reasons, fix);
}

}  // namespace

std::string NvrtcLibrary::version() const { return fmt::format("{}.{}", major, minor); }

NvrtcSearch NvrtcSearch::of_this_process(int driver_version) {
  NvrtcSearch search;
  if (const char* path = secure_getenv(kOverride)) search.override_path = path;
  search.in_process = loaded_already();
  add_installed(search.folders);
  add_toolkits(search.folders);
  add_wheels(search.folders);
  search.driver_version = driver_version;
  return search;
}

std::vector<NvrtcCandidate> find_nvrtc(const NvrtcSearch& search) {
  std::vector<NvrtcCandidate> found;
  const auto add = [&found](const std::string& path, const std::string& origin) {
    const std::string real = canonical(path);
    const bool known = std::any_of(found.begin(), found.end(), [&](const auto& c) { return c.path == real; });
    if (!real.empty() && !known) found.push_back({.path = real, .origin = origin, .major = major_in(path)});
  };
  const auto add_folder = [&add](const std::string& folder, const std::string& origin) {
    for (const int major : kMajors) {
      const std::string path = (fs::path(folder) / soname(major)).string();
      if (is_file(path)) add(path, origin);
    }
  };

  if (const std::string& path = search.override_path; !path.empty()) {
    if (is_folder(path)) {
      add_folder(path, kOverride);
    } else {
      add(path, kOverride);
    }
    if (found.empty()) {
      found.push_back({.path = path,
                       .origin = kOverride,
                       .problem = "no such file, nor a folder with libnvrtc.so.13 or libnvrtc.so.12"});
    }
    return found;
  }
  found = search.in_process;
  for (const NvrtcSearch::Folder& folder : search.folders)
    add_folder(folder.path, folder.origin);
  if (search.system_search) {
    for (const int major : kMajors)
      found.push_back({.path = soname(major), .origin = kSystem, .major = major});
  }
  return found;
}

NvrtcChoice choose_nvrtc(const NvrtcSearch& search) {
  NvrtcChoice choice;
  choice.candidates = find_nvrtc(search);
  std::vector<NvrtcCandidate*> order;
  for (NvrtcCandidate& candidate : choice.candidates) {
    if (search.override_path.empty() && !driver_takes(search.driver_version, candidate.major)) {
      candidate.problem = fmt::format("the driver supports CUDA {} and cannot load what NVRTC {} makes{}",
                                      cuda_version_text(search.driver_version), candidate.major,
                                      candidate.major == 13 ? "; that needs driver 580 or newer" : "");
    } else if (candidate.problem.empty()) {
      order.push_back(&candidate);
    }
  }
  std::sort(order.begin(), order.end(), better);
  for (NvrtcCandidate* candidate : order) {
    choice.library = load(*candidate);
    if (!choice.library) continue;
    candidate->chosen = true;
    break;
  }
  // The system's search names libraries before it is known that there are any.
  std::erase_if(choice.candidates, [](const NvrtcCandidate& candidate) {
    return candidate.origin == kSystem && !candidate.problem.empty();
  });
  if (!choice.library) choice.problem = nothing_found(search, choice.candidates);
  return choice;
}

const NvrtcChoice& nvrtc_choice() {
  static const NvrtcChoice choice = choose_nvrtc(NvrtcSearch::of_this_process(cuda_driver().version));
  return choice;
}

std::vector<NvrtcCandidate> nvrtc_candidates() {
  std::vector<NvrtcCandidate> candidates = nvrtc_choice().candidates;
  for (NvrtcCandidate& candidate : candidates) {
    if (candidate.minor < 0 && candidate.problem.empty()) load(candidate);
  }
  // The system's search finds what another place has found already, or nothing at all.
  for (std::size_t i = candidates.size(); i-- > 0;) {
    if (candidates[i].origin != kSystem) continue;
    const bool again = std::any_of(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(i),
                                   [&](const auto& earlier) { return earlier.path == candidates[i].path; });
    if (again || !candidates[i].problem.empty())
      candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return candidates;
}

}  // namespace adamas::runtime
