// Target names: what is accepted, what is refused and how; which generator serves which; names of units and
// stages.
#include "codegen/target.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>

#include "codegen/error.hpp"
#include "codegen/generator.hpp"

using namespace adamas::codegen;

TEST_CASE("known names and what a machine calls itself are accepted") {
  for (const std::string& target : known_targets()) {
    CAPTURE(target);
    if (target != "host") CHECK_NOTHROW(check_target(target));
  }
  for (const std::string target :
       {"sm_87", "sm_90a", "sm_100f", "sm_103a", "sm_121", "x86-64", "x86-64-znver4", "aarch64",
        "aarch64-neoverse-v1", "x86-64:znver4:+avx2,+fma,-avx512f,+sse4.2,+64bit",
        "aarch64:neoverse-n1:+neon", "x86-64:generic:"}) {
    CAPTURE(target);
    CHECK_NOTHROW(check_target(target));
  }
}

TEST_CASE("other names are refused with the known ones") {
  for (const std::string target : {"",
                                   "sm_",
                                   "sm_9",
                                   "sm_75",
                                   "sm_090",
                                   "sm_90b",
                                   "sm_90aa",
                                   "sm_-90",
                                   "sm_90 ",
                                   "sm_1000",
                                   "sm_99999999999999999999",
                                   "SM_90",
                                   "compute_90",
                                   "cuda",
                                   "x86_64",
                                   "x86-64-v1",
                                   "x86-64-v5",
                                   "x86-64-",
                                   "x86-64:",
                                   "x86-64::+avx",
                                   "x86-64:znver4",
                                   "x86-64:znver4:avx2",
                                   "x86-64:znver4:+avx2,",
                                   "x86-64:znver4:+avx2,,+fma",
                                   "x86-64:znver4:+",
                                   "x86-64v3",
                                   "aarch64:n1:+a b",
                                   "x86-64-../../x",
                                   "x86-64-$(id)",
                                   "arm64"}) {
    CAPTURE(target);
    try {
      check_target(target);
      FAIL_CHECK("was accepted");
    } catch (const Error& error) {
      CHECK(error.code() == ADAMAS_INVALID_SPEC);
      CHECK(error.field() == "target");
      CHECK(error.value() == target);
      CHECK(error.hint().starts_with("known targets: sm_80, "));
    }
  }
}

TEST_CASE("an unresolved host is a bug of the caller") {
  try {
    check_target("host");
    FAIL_CHECK("was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_INTERNAL);
  }
}

TEST_CASE("CUDA architectures") {
  CHECK(is_cuda_target("sm_90a"));
  CHECK_FALSE(is_cuda_target("x86-64-v3"));
  CHECK(cuda_architecture("sm_80") == 80);
  CHECK(cuda_architecture("sm_90a") == 90);
  CHECK(cuda_architecture("sm_100f") == 100);
  CHECK_THROWS_AS(cuda_architecture("x86-64-v3"), Error);
  CHECK_THROWS_AS(cuda_architecture("sm_75"), Error);
}

TEST_CASE("a target chooses its generator") {
  CHECK(generator_for("sm_90a").language() == "cuda");
  CHECK(generator_for("x86-64-v3").language() == "cpu");
  CHECK(generator_for("aarch64").language() == "cpu");
}

TEST_CASE("every stage has a name of its own and belongs to a unit") {
  std::set<std::string> names;
  for (const Stage stage : kStages)
    names.insert(entry_name(stage));
  CHECK(names.size() == kStages.size());
  CHECK(entry_name(Stage::prepare_query) == "adamas_prepare_query");
  CHECK(name(Stage::merge) == "merge");
  CHECK(unit_of(Stage::import_codes) == Unit::encode);
  CHECK(unit_of(Stage::check_codes) == Unit::encode);
  CHECK(unit_of(Stage::scan) == Unit::select);
  CHECK(unit_of(Stage::merge) == Unit::attend);
  CHECK(name(Unit::select) == "select");
}
