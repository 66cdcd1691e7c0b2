// `adamas tune` from its command line: a dry run, a real search on the CPU with a small budget, resuming, the
// report, and the commands for tuning files.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"
#include "runtime/compile/subprocess.hpp"
#include "runtime/dispatch/tuning_file.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/tune/record.hpp"
#include "tools/tune/report.hpp"

namespace adamas::tests {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream stream(path);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::size_t count_of(const std::string& text, const std::string& word) {
  std::size_t count = 0;
  for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1))
    ++count;
  return count;
}

TEST_CASE("tune --dry-run lists candidates once, and why others are left out") {
  const auto outcome = adamas_cli({"tune", "--dry-run", "--target", "sm_90a", "--spec", "group=4", "--shapes",
                                   "kv_heads=8 tokens=32768", "--json"});
  REQUIRE(outcome.exit_code == 0);
  const auto object = outcome.object();
  const auto& candidates = object.at("candidates");
  CHECK(candidates.size() > 10);
  auto sorted = candidates.get<std::vector<std::string>>();
  std::ranges::sort(sorted);
  CHECK(std::ranges::adjacent_find(sorted) == sorted.end());
  CHECK(object.at("excluded").size() > 0);
  for (const auto& excluded : object.at("excluded"))
    CHECK_FALSE(excluded.at("why").get<std::string>().empty());
  // A Spec without the one-launch decode has nothing to try about it.
  const auto large = adamas_cli({"tune", "--dry-run", "--target", "sm_80", "--json"}).lines().front();
  for (const std::string tuning : large.at("candidates"))
    CHECK(contains(tuning, "schedule=stages"));
}

TEST_CASE("tune refuses what it cannot tune for") {
  const auto ragged = adamas_cli({"tune", "--device", "cpu", "--shapes", "tokens=1024..4096"});
  CHECK(ragged.exit_code == 1);
  CHECK(contains(ragged.err, "one length"));
  const auto unknown = adamas_cli({"tune", "--dry-run", "--target", "sm_5"});
  CHECK(unknown.exit_code == 1);
  const auto unwritable =
      adamas_cli({"tune", "--device", "cpu", "--out", "no/such/folder/t.json", "--shapes", "tokens=512"});
  CHECK(unwritable.exit_code == 1);
  CHECK(contains(unwritable.err, "no/such/folder/t.json"));
}

TEST_CASE("cpu: a search ends within its budget, its file is used and its report is whole") {
  const ScratchFolder folder;
  const Environment cache("ADAMAS_CACHE_DIR", folder / "cache");
  const std::string out = folder / "tuned.json", report = folder / "report.html";
  // As a program of its own: it starts itself as worker.
  const std::vector<std::string> command{ADAMAS_CLI,      "tune",
                                         "--device",      "cpu",
                                         "--spec",        "head_dim=64 budget=32",
                                         "--shapes",      "kv_heads=1 tokens=1024,2048",
                                         "--budget-time", "20s",
                                         "--memory",      "0.2",
                                         "--out",         out,
                                         "--report",      report,
                                         "--json"};
  const auto result = runtime::run_subprocess(command, "", std::chrono::seconds(180));
  INFO(result.diagnostics);
  REQUIRE(result.exit_status == 0);
  const Outcome outcome{0, result.output, result.diagnostics};
  int shapes = 0, trials = 0;
  for (const auto& event : outcome.lines()) {
    shapes += event.at("event") == "shape";
    trials += event.at("event") == "trial";
    if (event.at("event") == "trial") CHECK(event.at("state") != "failed");
  }
  CHECK(shapes == 2);
  CHECK(trials >= 2);
  const auto file = runtime::TuningFile::read(out);
  REQUIRE(file.entries().size() == 2);
  for (const auto& entry : file.entries()) {
    CHECK(entry.us > 0);
    CHECK(entry.us <= entry.default_us * 1.2);
    CHECK_FALSE(entry.device_name.empty());
  }
  CHECK_FALSE(std::filesystem::exists(out + ".journal"));

  const std::string html = text_of(report);
  CHECK(html.starts_with("<!DOCTYPE html>"));
  CHECK(html.ends_with("</html>\n"));
  CHECK(count_of(html, "<svg") == count_of(html, "</svg>"));
  CHECK(count_of(html, "<svg class=\"heat\"") == 1);
  CHECK(count_of(html, "<svg class=\"roofline\"") == 2);
  CHECK(count_of(html, "<svg class=\"sensitivity\"") == 2);
  CHECK(count_of(html, "<table") == count_of(html, "</table>"));
  CHECK(count_of(html, "http") == 0);  // nothing is fetched

  const auto shown = adamas_cli({"tune", "show", out, "--json"});
  CHECK(shown.lines().size() == 2);
  const std::string merged = folder / "merged.json";
  CHECK(adamas_cli({"tune", "merge", out, out, "--out", merged}).exit_code == 0);
  CHECK(text_of(merged) == text_of(out));
  const auto lines = adamas_cli({"tune", "export", out});
  CHECK(count_of(lines.out, " -> schedule=") == 1);
}

tools::TuneSubject subject() {
  return {.spec = codegen::Spec::parse("head_dim=64").text(),
          .target = "x86-64-v3",
          .device = "cpu",
          .device_name = "a <CPU> & \"more\"",
          .driver = "",
          .library = "0.1.0",
          .read_gbps = 100};
}

tools::ShapeRecord record() {
  const auto spec = codegen::Spec::parse("head_dim=64");
  tools::ShapeRecord record;
  record.shape = {.batch = 2, .kv_heads = 4, .tokens = 8192};
  record.bytes = 1e6;
  for (const char* tuning : {"", "scan_tile=512", "scan_tile=1024 chunk=32", "chunk=64"})
    record.tunings.push_back(codegen::Tuning::parse(tuning, spec, "x86-64-v3").text());
  using State = tools::Trial::State;
  record.trials = {{.state = State::dropped, .us = 20, .ratio = 1, .spread = 0.01, .passes = 9},
                   {.state = State::running, .us = 10, .ratio = 0.5, .spread = 0.01, .passes = 45},
                   {.state = State::dropped, .us = 15, .ratio = 0.75, .spread = 0.02, .passes = 3},
                   {.state = State::failed, .why = "crashed <badly>"}};
  record.best = 1;
  record.complete = true;
  record.chosen = record.tunings[1];
  record.dense_us = 100;
  record.excluded = {{"scan_tile=64", "a rule"}};
  return record;
}

TEST_CASE("the report's figures are the records', and text from outside is escaped") {
  const std::string html =
      tools::tuning_report({{subject(), {{"scan_tile", {"512", "1024", "2048"}, false}}, {record()}}});
  CHECK(contains(html, "a &lt;CPU&gt; &amp; &quot;more&quot;"));
  CHECK(contains(html, "crashed &lt;badly&gt;"));
  CHECK_FALSE(contains(html, "<badly>"));
  CHECK(contains(html, "<td>2.000x</td>"));  // speed-up
  CHECK(contains(html, "<td>10.00x</td>"));  // over dense
  CHECK(contains(html, "<td>100 %</td>"));   // 1 MB in 10 us, of 100 GB/s
  CHECK(contains(html, "scan_tile=64"));
}

TEST_CASE("a choice is recorded beside what the default took in the same rounds") {
  tools::ShapeRecord drifted = record();
  drifted.trials[0].us = 8;  // over all rounds, most of them of a time when the machine was faster
  const auto entry = tools::entry_of(subject(), drifted);
  CHECK(entry.us == 10);
  CHECK(entry.default_us == 20);
  CHECK(contains(tools::tuning_report({{subject(), {}, {drifted}}}),
                 "<td>20.00</td><td>10.00</td><td>2.000x</td>"));
  drifted.best = 0;
  CHECK(tools::entry_of(subject(), drifted).default_us == 8);
}

TEST_CASE("what a value costs is the best trial with it, over the best of all") {
  const auto costs = tools::sensitivity(record(), {"scan_tile", {"512", "1024", "2048", "4096"}, false},
                                        subject().spec, subject().target);
  REQUIRE(costs.size() == 3);
  CHECK(costs[0].ratio == 1);
  CHECK(costs[1].ratio == doctest::Approx(1.5));
  CHECK(costs[2].ratio == doctest::Approx(2));
}

TEST_CASE("a journal is gone on from, whatever its last line is") {
  const ScratchFolder folder;
  const std::string path = folder / "journal";
  const tools::ShapeRecord done = record();
  const runtime::TunedShape other{.batch = 1, .kv_heads = 4, .tokens = 512};
  {
    tools::Journal journal(path, subject());
    journal.add(done);
    journal.add(other, done.tunings[1], done.trials[1]);
    journal.add(other, done.tunings[3], done.trials[3]);
  }
  std::ofstream(path, std::ios::app) << "{\"subject\": {\"spec\"";
  const tools::Journal journal(path, subject());
  REQUIRE(journal.finished(done.shape) != nullptr);
  CHECK(json_of(*journal.finished(done.shape)) == json_of(done));
  CHECK(journal.finished(other) == nullptr);
  const auto known = journal.known(other);
  REQUIRE(known.size() == 2);
  CHECK(known.at(done.tunings[1]).ratio == 0.5);
  CHECK(known.at(done.tunings[3]).state == tools::Trial::State::failed);

  auto elsewhere = subject();
  elsewhere.device_name = "another";
  CHECK(tools::Journal(path, elsewhere).finished(done.shape) == nullptr);
}

}  // namespace
}  // namespace adamas::tests
