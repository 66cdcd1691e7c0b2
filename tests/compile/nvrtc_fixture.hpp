// The NVRTC libraries that tests can use: one of each major version that this machine has.
#pragma once

#include <map>
#include <memory>

#include "runtime/compile/nvrtc_library.hpp"

namespace adamas::tests {

/// By major version. Empty on a machine that has none (tools/setup --all brings both).
inline const std::map<int, std::shared_ptr<const runtime::NvrtcLibrary>>& nvrtc_libraries() {
  static const auto libraries = [] {
    std::map<int, std::shared_ptr<const runtime::NvrtcLibrary>> found;
    for (const runtime::NvrtcCandidate& candidate : runtime::nvrtc_candidates()) {
      if (candidate.minor < 0 || found.count(candidate.major) > 0) continue;
      runtime::NvrtcSearch search;
      search.override_path = candidate.path;
      if (auto library = runtime::choose_nvrtc(search).library)
        found.emplace(candidate.major, std::move(library));
    }
    return found;
  }();
  return libraries;
}

}  // namespace adamas::tests
