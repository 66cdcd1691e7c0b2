# Writes OUTPUT: a C++ file that holds every template as a string literal, without the lines that only editors and
# ordinary compilers need (#pragma once, #include). Called at build time: cmake -DROOT= -DOUTPUT= -DFILES= -P embed.cmake
set(entries "")
set(index 0)
set(definitions "")
string(REPLACE "," ";" FILES "${FILES}")
foreach(path IN LISTS FILES)
  file(READ "${ROOT}/${path}" text)
  string(REGEX REPLACE "#pragma once[^\n]*\n" "" text "${text}")
  string(REGEX REPLACE "#include[^\n]*\n" "" text "${text}")
  # String literals have a length limit in some compilers: cut at 8000 characters.
  string(LENGTH "${text}" length)
  set(literal "")
  set(at 0)
  while(at LESS length)
    string(SUBSTRING "${text}" ${at} 8000 piece)
    string(APPEND literal "R\"~~(${piece})~~\"\n")
    math(EXPR at "${at} + 8000")
  endwhile()
  string(APPEND definitions "constexpr std::string_view kText${index} =\n${literal};\n\n")
  string(APPEND entries "    {\"${path}\", kText${index}},\n")
  math(EXPR index "${index} + 1")
endforeach()
set(content "// Generated from templates/ by templates/embed.cmake.
#include \"codegen/templates.hpp\"

namespace adamas::codegen {
namespace {
${definitions}constexpr EmbeddedFile kFiles[] = {
${entries}};
}  // namespace

std::span<const EmbeddedFile> embedded_templates() { return kFiles; }

}  // namespace adamas::codegen
")
file(WRITE "${OUTPUT}" "${content}")
