// The device-code templates, embedded in the library at build time: a deployed binary needs no source tree.
#pragma once

#include <span>
#include <string_view>

namespace adamas::codegen {

struct EmbeddedFile {
  std::string_view path;  ///< relative to templates/: "cuda/scan.cuh"
  std::string_view text;
};

std::span<const EmbeddedFile> embedded_templates();

/// Text of one template without its `#pragma once` and `#include` lines (the generator places files in order).
/// Throws Error(ADAMAS_INTERNAL) for an unknown path.
std::string_view embedded_template(std::string_view path);

}  // namespace adamas::codegen
