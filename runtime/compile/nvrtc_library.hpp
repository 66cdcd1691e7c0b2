// NVRTC, NVIDIA's run-time compiler: where its library may be, which one to take, and its loaded functions.
//
// Nothing links to it. It may come from the host process, an installation of this library, a CUDA toolkit, a
// Python wheel or the system; machines that find every kernel in the cache or a pack need none.
#pragma once

#include <nvrtc.h>

#include <memory>
#include <string>
#include <vector>

namespace adamas::runtime {

#define ADAMAS_NVRTC_SYMBOLS(X) \
  X(nvrtcVersion)               \
  X(nvrtcGetErrorString)        \
  X(nvrtcGetNumSupportedArchs)  \
  X(nvrtcGetSupportedArchs)     \
  X(nvrtcCreateProgram)         \
  X(nvrtcDestroyProgram)        \
  X(nvrtcCompileProgram)        \
  X(nvrtcGetProgramLogSize)     \
  X(nvrtcGetProgramLog)         \
  X(nvrtcGetCUBINSize)          \
  X(nvrtcGetCUBIN)              \
  X(nvrtcGetPTXSize)            \
  X(nvrtcGetPTX)

/// A loaded NVRTC. Never unloaded: other code of the process may have come to use it.
struct NvrtcLibrary {
#define ADAMAS_DECLARE(symbol) decltype(&::symbol) symbol = nullptr;
  ADAMAS_NVRTC_SYMBOLS(ADAMAS_DECLARE)
#undef ADAMAS_DECLARE

  std::string path;  ///< the file that was loaded
  int major = 0, minor = 0;
  std::vector<int> architectures;  ///< that it compiles for: 80, 86, 90, ...

  std::string version() const;  ///< "13.0"
};

/// One place where an NVRTC is.
struct NvrtcCandidate {
  std::string path;          ///< the file; a bare name is left to the system's search
  std::string origin;        ///< what led there: "ADAMAS_NVRTC_PATH", "this process", "CUDA toolkit", ...
  int major = 0;             ///< from the file's name until loaded; 0 if the name has none
  int minor = -1;            ///< -1 until loaded
  std::string problem = {};  ///< why it cannot be used; empty if it can, or was not tried
  bool chosen = false;
};

/// What the search looks at: the process and its environment, or a test's own.
struct NvrtcSearch {
  std::string override_path;               ///< $ADAMAS_NVRTC_PATH: a file or folder; alone if set
  std::vector<NvrtcCandidate> in_process;  ///< libraries that are loaded already
  struct Folder {
    std::string path, origin;
  };
  std::vector<Folder> folders;  ///< in order of preference
  bool system_search = true;    ///< ask the dynamic linker last
  int driver_version = 0;       ///< what the CUDA driver supports (12040 = 12.4); 0 = no driver here

  static NvrtcSearch of_this_process(int driver_version);
};

/// Files that exist, best place first, each once. Loads nothing.
std::vector<NvrtcCandidate> find_nvrtc(const NvrtcSearch& search);

struct NvrtcChoice {
  std::shared_ptr<const NvrtcLibrary> library;  ///< null if there is none
  std::string problem;                          ///< then: why, and the fix
  std::vector<NvrtcCandidate> candidates;       ///< with what was learned on the way
};

/// Takes the newest major version that the driver supports (all, without a driver), one that is in the
/// process before others, then by place; loads until one works. ADAMAS_NVRTC_PATH overrules all of that.
NvrtcChoice choose_nvrtc(const NvrtcSearch& search);

/// This process's choice, made by the first call.
const NvrtcChoice& nvrtc_choice();

/// Every candidate of this process, loaded to learn version and problems: for `adamas doctor`.
std::vector<NvrtcCandidate> nvrtc_candidates();

}  // namespace adamas::runtime
