// Looking up the embedded templates; the build writes the table itself (templates/embed.cmake).
#include "codegen/templates.hpp"

#include <algorithm>
#include <string>

#include "codegen/error.hpp"

namespace adamas::codegen {

std::string_view embedded_template(std::string_view path) {
  const auto files = embedded_templates();
  const auto file = std::ranges::find(files, path, &EmbeddedFile::path);
  if (file == files.end()) {
    throw Error(ADAMAS_INTERNAL, "template", std::string(path), "is not embedded in the library");
  }
  return file->text;
}

}  // namespace adamas::codegen
