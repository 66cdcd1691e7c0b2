// Tuning: defaults of every generator hold the ranges, overrides and their errors, the text form.
#include "codegen/tuning.hpp"

#include <doctest/doctest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/generator.hpp"
#include "tests/codegen/spec_gen.hpp"

using namespace adamas::codegen;

namespace {

const std::vector<std::string> kTargets{"sm_80", "sm_90a", "sm_120", "x86-64-v2", "x86-64-v4", "aarch64"};

Error error_of(const std::string& text, const std::string& target) {
  try {
    Tuning::parse(text, Spec{}, target);
  } catch (const Error& error) {
    return error;
  }
  FAIL("was accepted: " << text);
  throw;
}

}  // namespace

TEST_CASE("an empty text is the target's default") {
  for (const std::string& target : kTargets) {
    CAPTURE(target);
    const Tuning expected = generator_for(target).default_tuning(Spec{}, target);
    CHECK(Tuning::parse("", Spec{}, target) == expected);
  }
}

TEST_CASE("a key overrides its default and no other") {
  Tuning expected = Tuning::parse("", Spec{}, "sm_90a");
  expected.chunk = 96;
  CHECK(Tuning::parse("chunk=96", Spec{}, "sm_90a") == expected);

  const Tuning all =
      Tuning::parse("threads=96 dense_chunk=1024 chunk=64 scan_tile=640 scan=popc cluster=0 schedule=stages",
                    Spec{}, "sm_80");
  CHECK(all.text() ==
        "schedule=stages cluster=0 scan=popc scan_tile=640 chunk=64 dense_chunk=1024 threads=96 "
        "decode_threads=0");
  CHECK(Tuning::parse("scan=table threads=0", Spec{}, "x86-64-v3").scan == "table");
}

TEST_CASE("a bad value is refused with its rule and the nearest valid value") {
  struct Row {
    std::string target, text, field, rule, nearest;
  };
  const std::vector<Row> rows{
      {"sm_80", "scan_tile=0", "scan_tile", "must be 64..65536, a multiple of 64", "64"},
      {"sm_80", "scan_tile=100", "scan_tile", "must be 64..65536, a multiple of 64", "128"},
      {"x86-64-v3", "scan_tile=99999999999999999999", "scan_tile", "must be 64..65536, a multiple of 64",
       "65536"},
      {"sm_80", "chunk=4", "chunk", "must be 16..4096, a multiple of 16", "16"},
      {"sm_80", "chunk=5000", "chunk", "must be 16..4096, a multiple of 16", "4096"},
      {"x86-64-v3", "chunk=4", "chunk", "must be 8..4096, a multiple of 8", "8"},
      {"sm_90a", "cluster=5", "cluster", "must be 0, 1, 2, 3, 4 or 8", "4"},
      {"x86-64-v3", "schedule=cluster", "schedule", "must be stages", "stages"},
      {"x86-64-v3", "dense_chunk=100000", "dense_chunk", "must be 8..65536, a multiple of 8", "65536"},
      {"sm_80", "threads=0", "threads", "must be 32..512, a multiple of 32", "32"},
      {"sm_80", "threads=100", "threads", "must be 32..512, a multiple of 32", "96"},
      {"x86-64-v3", "threads=8", "threads", "must be 0", "0"},
      {"sm_80", "scan=table", "scan", "must be popc or bytes", "popc"},
      {"x86-64-v3", "scan=popc", "scan", "must be table", "table"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    const Error error = error_of(row.text, row.target);
    CHECK(error.code() == ADAMAS_INVALID_SPEC);
    CHECK(error.field() == row.field);
    CHECK(error.rule() == row.rule);
    CHECK(error.hint() == "nearest valid value: " + row.nearest);
  }
}

TEST_CASE("a bad text and a bad target are refused") {
  CHECK(error_of("tile=64", "sm_80").rule() == "is not a key of a Tuning");
  CHECK(error_of("scantile=64", "sm_80").hint() == "nearest key: scan_tile");
  CHECK(error_of("chunk=32 chunk=32", "sm_80").rule() == "is given twice");
  CHECK(error_of("chunk", "sm_80").rule() == "a Tuning is written key=value");
  CHECK(error_of("", "sm_70").field() == "target");
}

TEST_CASE("property: canonical text parses back to an equal Tuning, defaults of any Spec included") {
  CHECK(rc::check([] {
    const Spec spec = *any_spec();
    const std::string target = *rc::gen::elementOf(kTargets);
    std::string text;
    if (*rc::gen::arbitrary<bool>()) text += " scan_tile=" + std::to_string(64 * *rc::gen::inRange(1, 1025));
    if (*rc::gen::arbitrary<bool>()) text += " chunk=" + std::to_string(16 * *rc::gen::inRange(1, 257));
    if (*rc::gen::arbitrary<bool>()) text += " dense_chunk=" + std::to_string(8 * *rc::gen::inRange(1, 8193));
    const Tuning tuning = Tuning::parse(text, spec, target);
    RC_ASSERT(Tuning::parse(tuning.text(), spec, target) == tuning);
  }));
}
