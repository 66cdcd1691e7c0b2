// Tuning files: what they hold survives a round trip, damage is named, and the nearest entry is taken.
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "codegen/error.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"
#include "runtime/dispatch/tuning_file.hpp"

namespace {

using namespace adamas;
using runtime::TunedEntry;
using runtime::TuningFile;

TunedEntry entry(int batch, std::int64_t tokens, const std::string& tuning,
                 const std::string& device = "card") {
  const auto spec = codegen::Spec::parse("group=4");
  TunedEntry entry;
  entry.spec = spec.text();
  entry.target = "sm_90a";
  entry.shape = {.batch = batch, .kv_heads = 8, .tokens = tokens};
  entry.tuning = codegen::Tuning::parse(tuning, spec, "sm_90a").text();
  entry.device_name = device;
  entry.driver = "CUDA 13.0";
  entry.library = "0.1.0";
  entry.us = 10.5, entry.default_us = 12, entry.dense_us = 50;
  return entry;
}

std::string error_of(const std::string& text) {
  try {
    TuningFile::parse("t.json", text);
  } catch (const codegen::Error& error) {
    return std::string(error.what());
  }
  return "";
}

TEST_CASE("tuning file: a round trip keeps everything, in one order") {
  TuningFile file;
  file.put(entry(16, 32768, "cluster=1"));
  file.put(entry(1, 32768, "cluster=8"));
  const TuningFile again = TuningFile::parse("t.json", file.text());
  REQUIRE(again.entries().size() == 2);
  CHECK(again.text() == file.text());
  CHECK(again.entries()[0].shape.batch == 1);
  CHECK(again.entries()[1].us == 10.5);

  file.put(entry(1, 32768, "cluster=4"));
  CHECK(file.entries().size() == 2);
  CHECK(file.entries()[0].tuning == entry(1, 32768, "cluster=4").tuning);

  TuningFile other;
  other.put(entry(1, 32768, "cluster=2"));
  other.put(entry(1, 8192, "cluster=2"));
  file.merge(other);
  CHECK(file.entries().size() == 3);
}

TEST_CASE("tuning file: what is wrong with one is said") {
  CHECK(error_of("").find("no tuning file") != std::string::npos);
  CHECK(error_of("[1, 2]").find("no tuning file") != std::string::npos);
  CHECK(error_of("{\"adamas_tuning\": 0, \"entries\": []}")
            .find("has version 0; this library reads version 1") != std::string::npos);
  CHECK(error_of("{\"adamas_tuning\": 1}").find("no list of entries") != std::string::npos);
  TuningFile file;
  file.put(entry(1, 8192, "cluster=2"));
  const std::string whole = file.text();
  CHECK(error_of(whole).empty());
  for (const auto& [from, to] :
       {std::pair{"\"batch\": 1", "\"batch\": 0"}, std::pair{"\"batch\": 1", "\"batch\": \"one\""},
        std::pair{"cluster=2", "cluster=5"}, std::pair{"\"sm_90a\"", "\"sm_nine\""},
        std::pair{"group=4", "group=400"}, std::pair{"\"tokens\"", "\"token\""}}) {
    CAPTURE(to);
    std::string damaged = whole;
    damaged.replace(damaged.find(from), std::string(from).size(), to);
    CHECK(error_of(damaged).find("entry 1") != std::string::npos);
  }
  // Cut off anywhere, it is no JSON or lacks something: never a crash, never half an entry.
  for (std::size_t bytes = 0; bytes + 2 < whole.size(); bytes += 7) {
    CHECK_FALSE(error_of(whole.substr(0, bytes)).empty());
  }
}

TEST_CASE("tuning file: the nearest shape decides, of the own device if it has any") {
  TuningFile file;
  file.put(entry(1, 32768, "cluster=8"));
  file.put(entry(16, 32768, "cluster=1"));
  file.put(entry(1, 32768, "cluster=2", "other card"));
  const std::string spec = file.entries()[0].spec;
  const auto own = entries_for(file, spec, "sm_90a", "card");
  CHECK(own.size() == 2);
  CHECK(entries_for(file, spec, "sm_90a", "unknown").size() == 3);
  CHECK(entries_for(file, spec, "sm_80", "card").empty());
  CHECK(nearest_entry(own, {.batch = 2, .kv_heads = 8, .tokens = 30000})->shape.batch == 1);
  CHECK(nearest_entry(own, {.batch = 8, .kv_heads = 8, .tokens = 131072})->shape.batch == 16);
  CHECK(runtime::nearest_entry({}, {}) == nullptr);
}

TEST_CASE("tuning file: a path that cannot be read or written is named") {
  CHECK_THROWS_WITH(TuningFile::read("no/such/file.json"), doctest::Contains("no/such/file.json"));
  CHECK_THROWS_WITH(TuningFile().write("no/such/file.json"), doctest::Contains("no/such/file.json"));
}

}  // namespace
