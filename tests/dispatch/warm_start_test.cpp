// A process whose kernels are in the cache: it compiles nothing, starts no compiler and has none in its
// memory.
#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>

#include <adamas/adamas.hpp>

#include "tests/cache/support.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {

TEST_CASE("cpu: cached kernels are loaded and run with no compiler mapped") {
  const ScratchFolder folder;
  const std::string directory = folder / "cache";
  {
    const Context first(ContextOptions{.device = "cpu", .cache_dir = directory.c_str()});
    CHECK(SmallProblem(first, {}).kernel.info().compiles == 3);
  }
  const Context context(
      ContextOptions{.device = "cpu", .cache_dir = directory.c_str(), .compile = ADAMAS_COMPILE_DENY});
  const SmallProblem problem(context, {});
  CHECK(problem.kernel.info().compiles == 0);
  problem.encode();
  CHECK(problem.decode().counters.status == 0);
  CHECK(context.cache_counters().compiles == 0);

  std::ifstream file("/proc/self/maps");
  const std::string maps{std::istreambuf_iterator<char>(file), {}};
  CHECK(maps.find("adamas_select") != std::string::npos);  // the kernels are: the file tells
  CHECK(maps.find("libLLVM") == std::string::npos);
  CHECK(maps.find("libclang") == std::string::npos);
}

}  // namespace adamas::tests
