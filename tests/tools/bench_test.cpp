// bench on the CPU: that what it times is what it says (every token scanned, keys as asked for), and what it
// prints for machines. The figures themselves are no test's business.
#include <doctest/doctest.h>

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/error.hpp"
#include "runtime/dispatch/handle.hpp"
#include "runtime/dispatch/operations.hpp"
#include "tests/cache/support.hpp"
#include "tests/tools/cli_runner.hpp"
#include "tools/bench_data.hpp"

namespace tools = adamas::tools;
using adamas::codegen::Spec;
using adamas::tests::adamas_cli;
using adamas::tests::ScratchFolder;
using nlohmann::json;

namespace {

const std::string kSpec = "head_dim=64 group=2 budget=16";

/// Caches on the CPU, and a plan over them.
struct Fixture {
  Fixture(const std::string& spec_text, const std::string& shape_text, int sets, tools::KeyPattern keys,
          bool scattered)
      : spec(Spec::parse(spec_text)),
        shape(tools::parse_shapes(shape_text).front()),
        layout(tools::lay_out(spec, shape, scattered)),
        kernel(context.prepare(spec.text(), layout.capacity)),
        data(context, *device, spec, kernel, layout, sets, keys),
        plan(kernel.plan({.batch = shape.batch(), .dense_below = 0})),
        workspace(context.allocate<std::byte>(plan.info().workspace_bytes)),
        counters(context.allocate<std::byte>(ADAMAS_COUNTERS_BYTES)) {
    context.clear(counters.data());
  }

  adamas::Call call(int step) const {
    adamas::Call call = data.call(step);
    call.workspace = workspace.data();
    call.workspace_bytes = workspace.size();
    call.counters = counters.data();
    return call;
  }

  /// Scores of the first row's first selection.
  std::vector<std::int32_t> scores() const {
    const auto info = plan.info();
    const auto rows = static_cast<std::size_t>(info.rows) * static_cast<std::size_t>(info.selections);
    const auto positions = context.allocate<std::int32_t>(rows * static_cast<std::size_t>(spec.budget));
    const auto counts = context.allocate<std::int32_t>(rows);
    const auto all = context.allocate<std::int32_t>(rows * static_cast<std::size_t>(shape.capacity));
    adamas::Call selecting = call(0);
    selecting.positions = positions.data();
    selecting.counts = counts.data();
    selecting.scores = all.data();
    plan.select(selecting);
    auto scores = all.download();
    scores.resize(static_cast<std::size_t>(shape.lengths.front()));
    return scores;
  }

  adamas::Context context{"cpu"};
  std::shared_ptr<adamas::runtime::Device> device = adamas::runtime::open_device("cpu", 1);
  Spec spec;
  tools::BenchShape shape;
  tools::BenchLayout layout;
  adamas::Kernel kernel;
  tools::BenchData data;
  adamas::Plan plan;
  adamas::Buffer<std::byte> workspace, counters;
};

/// How often neighbours differ.
int changes(const std::vector<std::int32_t>& values) {
  int count = 0;
  for (std::size_t i = 1; i < values.size(); ++i)
    count += values[i] != values[i - 1] ? 1 : 0;
  return count;
}

std::vector<json> bench_lines(std::vector<std::string> words) {
  words.insert(words.begin(),
               {"bench", "--device", "cpu", "--json", "--memory", "0.001", "--seconds", "0.01"});
  const auto outcome = adamas_cli(words);
  CAPTURE(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return outcome.lines();
}

}  // namespace

TEST_CASE("a bench step scans every token of every sequence, in any layout") {
  for (const std::string form :
       {"block_table", "contiguous", "slots", "csr page_size=32", "block_table tables=split",
        "block_table q_type=f16 kv_type=f8e4m3fn", "csr q_type=f16 kv_type=q8_0"}) {
    for (const std::string shape : {"batch=3 kv_heads=2 tokens=200", "batch=3 kv_heads=2 tokens=40..500"}) {
      CAPTURE(form);
      CAPTURE(shape);
      const Fixture bench(kSpec + " cache_form=" + form, shape, 2, tools::KeyPattern::random, true);
      bench.plan.decode(bench.call(0));
      bench.plan.decode(bench.call(1));
      const auto counted = bench.context.read(bench.counters.data());
      CHECK(counted.status == 0);
      CHECK(counted.tokens_scanned == 2 * 2 * bench.shape.total_tokens());
      CHECK(counted.rows == 2 * 3 * 4);
    }
  }
}

TEST_CASE("stages that are timed one by one are the decode they belong to") {
  const Fixture bench(kSpec, "batch=3 kv_heads=2 tokens=40..500", 1, tools::KeyPattern::random, true);
  const adamas::Call call = bench.call(0);
  const std::span out(static_cast<std::uint16_t*>(call.out), 3 * 4 * 64);
  bench.plan.decode(call);
  const std::vector<std::uint16_t> want(out.begin(), out.end());
  std::fill(out.begin(), out.end(), 0);
  for (const auto stage : adamas::runtime::kDecodeStages)
    adamas::runtime::run_stage(*bench.plan.get()->plan, call, stage, nullptr);
  CHECK(std::equal(want.begin(), want.end(), out.begin()));
  CHECK_THROWS_AS(
      adamas::runtime::run_stage(*bench.plan.get()->plan, call, adamas::codegen::Stage::encode, nullptr),
      adamas::codegen::Error);
}

TEST_CASE("appending encodes each sequence's last token, to the codes it already has") {
  const Fixture bench(kSpec, "batch=3 kv_heads=2 tokens=40..500", 1, tools::KeyPattern::random, true);
  const auto exported = [&] {
    const auto bytes =
        bench.context.allocate<std::uint8_t>(static_cast<std::size_t>(bench.layout.slots) * 2 * 64);
    bench.kernel.codes_export({.codes = const_cast<void*>(bench.call(0).codes),
                               .bytes = bytes.data(),
                               .count = bench.layout.slots});
    return bytes.download();
  };
  const auto before = exported();
  auto append = bench.data.encode_last(0);
  append.counters = bench.counters.data();
  bench.kernel.encode(append);
  const auto counted = bench.context.read(bench.counters.data());
  CHECK(counted.status == 0);
  CHECK(counted.tokens_encoded == 3 * 2);
  CHECK(exported() == before);
  // About even shares of the four buckets, which the thresholds are made for.
  for (const std::uint8_t code : {0, 1, 2, 3}) {
    const auto share = static_cast<double>(std::count(before.begin(), before.end(), code)) /
                       static_cast<double>(before.size());
    CHECK(share > 0.15);
    CHECK(share < 0.35);
  }
}

TEST_CASE("keys are random, in bursts, or all equal") {
  const std::string shape = "kv_heads=2 tokens=4096";
  CHECK(changes(Fixture(kSpec, shape, 1, tools::KeyPattern::random, false).scores()) > 3000);
  const int bursts = changes(Fixture(kSpec, shape, 1, tools::KeyPattern::bursts, false).scores());
  CHECK(bursts > 4);
  CHECK(bursts < 64);
  CHECK(changes(Fixture(kSpec, shape, 1, tools::KeyPattern::ties, false).scores()) == 0);
}

TEST_CASE("bench prints one object for each shape and budget") {
  const ScratchFolder folder;
  adamas::tests::write_file(
      folder.path() / "dense.jsonl",
      adamas::tests::bytes_of(
          R"({"batch": 2, "query_heads": 4, "kv_heads": 2, "tokens": 300, "head_dim": 64, )"
          R"("us": 1e6, "backend": "cudnn packed"})"));
  const auto lines = bench_lines({"--spec", kSpec, "--shapes",
                                  "batch=2 kv_heads=2 tokens=300; batch=2 kv_heads=2 tokens=50..300",
                                  "--budgets", "16,32", "--encode", "--dense", folder / "dense.jsonl"});
  REQUIRE(lines.size() == 4);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const json& line = lines[i];
    CAPTURE(line.dump());
    for (const std::string name : {"us", "dense_us", "encode_us", "append_us", "appending_us", "scan_us"}) {
      CHECK(line.at(name + "_p10") > 0);
      CHECK(line.at(name + "_p10") <= line.at(name));
      CHECK(line.at(name) <= line.at(name + "_p90"));
    }
    const auto number = [&line](const char* name) { return line.at(name).get<double>(); };
    CHECK(number("speedup") == doctest::Approx(number("dense_us") / number("us")));
    CHECK(number("roofline") == doctest::Approx(number("gbps") / number("read_gbps")));
    CHECK(number("dense_roofline") == doctest::Approx(number("dense_ideal_us") / number("dense_us")));
    CHECK(number("ratio") == doctest::Approx(number("reference_us") / number("us")));
    CHECK(number("encode_roofline") == doctest::Approx(number("encode_gbps") / number("read_gbps")));
    // 4 query heads; 2 K/V heads whose codes take 2 bits of 64 elements.
    const double tokens = number("tokens_total");
    CHECK(number("scan_ns") == doctest::Approx(number("scan_us") * 1e3 * number("threads") / (tokens * 4)));
    CHECK(number("scan_gbps") * number("scan_us") * 1e3 == doctest::Approx(tokens * 2 * 16));
    CHECK(number("scan_roofline") == doctest::Approx(number("scan_gbps") / number("read_gbps")));
    for (const char* name : {"threads", "scan_warm_ns", "prepare_us", "select_us", "attend_us"})
      CHECK(number(name) > 0);
    CHECK(line.at("device") == "cpu");
    CHECK(line.at("timed_by") == "passes, host clock");
    CHECK(line.at("budget") == (i % 2 == 0 ? 16 : 32));
    CHECK(line.at("ragged") == (i >= 2));
    CHECK(line.at("reference") == (i >= 2 ? "ideal" : "cudnn packed"));
    CHECK(line.at("tokens_total") == (i >= 2 ? 350 : 600));
    CHECK(line.at("sets") >= 1);
    CHECK(number("cold") >= 0);
    CHECK(number("cold") < 1);              // a MB cannot leave a cache cold
    CHECK_FALSE(line.contains("host_ns"));  // a call's host time is its whole time
  }
  // K and V of all tokens, 2 heads of 64 halves each.
  CHECK(lines[0].at("dense_gbps").get<double>() * lines[0].at("dense_us").get<double>() * 1e3 ==
        doctest::Approx(600 * 2 * 128 * 2));
}

TEST_CASE("bench searches the length from which selection wins") {
  const auto lines = bench_lines({"--spec", kSpec, "--shapes", "kv_heads=2 tokens=600", "--crossover"});
  REQUIRE(lines.size() == 1);
  const json& points = lines[0].at("points");
  REQUIRE(points.size() == 2);
  CHECK(points[0].at("tokens") == 256);
  CHECK(points[1].at("tokens") == 512);
  CHECK(points[1].at("dense_us") > 0);
  CHECK(lines[0].at("dense_below") >= 16);
}

TEST_CASE("a preset's shapes are printed without a device, with what was given in place of its own") {
  const auto shapes = [](std::vector<std::string> words) {
    words.insert(words.begin(), {"bench", "--device", "cuda:99", "--print-shapes"});
    const auto outcome = adamas_cli(words);
    CHECK(outcome.exit_code == 0);
    return outcome.lines();
  };
  const auto paper = shapes({"--preset", "paper"});
  REQUIRE(paper.size() == 4);
  CHECK(paper[0].at("query_heads") == 32);
  CHECK(paper[0].at("kv_heads") == 32);
  CHECK(paper[0].at("tokens") == 8192);
  CHECK(paper[3].at("tokens") == 131072);
  const auto serving = shapes({"--preset", "serving"});
  REQUIRE(serving.size() == 4);
  CHECK(serving[0].at("query_heads") == 32);
  CHECK(serving[0].at("kv_heads") == 8);
  CHECK(serving[2].at("batch") == 16);
  CHECK(serving[3].at("ragged") == true);
  const auto changed =
      shapes({"--preset", "serving", "--spec", "head_dim=64 group=2 budget=32", "--shapes", "tokens=64"});
  REQUIRE(changed.size() == 1);
  CHECK(changed[0].at("query_heads") == 16);
  CHECK(changed[0].at("head_dim") == 64);
  CHECK(changed[0].at("budget") == 32);
}

TEST_CASE("bench shows people a table with every column that was asked for") {
  const auto outcome =
      adamas_cli({"bench", "--device", "cpu", "--memory", "0.001", "--seconds", "0.01", "--spec", kSpec,
                  "--shapes", "batch=2 kv_heads=2 tokens=50..300", "--encode"});
  CAPTURE(outcome.err);
  CHECK(outcome.exit_code == 0);
  for (const char* column : {"tokens", "roofline", "dense us", "encode GB/s", "append us", "ratio", "50..300",
                             "ideal", "scan ns", "scan GB/s", "attend us", "--memory 1 has room for more"})
    CHECK(outcome.out.find(column) != std::string::npos);
  CHECK(adamas_cli({"bench", "--memory", "0"}).exit_code == 2);
}
