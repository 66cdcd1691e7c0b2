// Who compiled: the program's name, versions and build id, as cache entries record them.
#pragma once

#include <string>

namespace adamas::tools::cc {

/// {"name":"adamas-cc","version":"0.1.0","llvm":"19.1.7","build_id":"16 hex digits"} on one line.
/// The build id covers this program and the clang and LLVM libraries it runs with.
std::string identity_json();

}  // namespace adamas::tools::cc
