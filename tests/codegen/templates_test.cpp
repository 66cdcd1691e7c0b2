// The embedded templates: the files of templates/, whole, without the lines that only editors need.
#include "codegen/templates.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "codegen/error.hpp"

using namespace adamas::codegen;

TEST_CASE("embedded text is the file without its include lines") {
  REQUIRE(!embedded_templates().empty());
  for (const EmbeddedFile& embedded : embedded_templates()) {
    CAPTURE(std::string(embedded.path));
    std::ifstream file(std::string(ADAMAS_TEST_DATA) + "/../../templates/" + std::string(embedded.path));
    REQUIRE(file.good());
    std::string expected;
    for (std::string line; std::getline(file, line);) {
      if (!line.starts_with("#include") && !line.starts_with("#pragma once")) expected += line + '\n';
    }
    CHECK(std::string(embedded.text) == expected);
    CHECK(embedded_template(embedded.path) == embedded.text);
  }
}

TEST_CASE("an unknown template is a bug of the library, named") {
  try {
    embedded_template("cuda/no_such_file.cuh");
    FAIL_CHECK("was found");
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_INTERNAL);
    CHECK(error.value() == "cuda/no_such_file.cuh");
  }
}
