// Shapes, presets and layouts of bench, the length at which selection begins to win, and files of dense
// times.
#include "tools/bench_shapes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "tests/cache/support.hpp"
#include "tools/bench_data.hpp"
#include "tools/bench_measure.hpp"
#include "tools/bench_report.hpp"

namespace tools = adamas::tools;
using adamas::codegen::Error;
using adamas::codegen::Spec;
using adamas::tests::ScratchFolder;

namespace {

/// "field=value" of the error that a call throws.
std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.field() + "=" + error.value();
  }
  return "none";
}

tools::CrossoverPoint point(std::int64_t tokens, double sparse, double dense) {
  return {.tokens = tokens, .sparse = {.median = sparse}, .dense = {.median = dense}};
}

std::string dense_file(const ScratchFolder& folder, const std::string& text) {
  const auto path = folder.path() / "dense.jsonl";
  adamas::tests::write_file(path, adamas::tests::bytes_of(text));
  return path.string();
}

tools::BenchRow row_of(const tools::BenchShape& shape) {
  tools::BenchRow row;
  row.shape = shape;
  row.spec = Spec::parse("group=4");
  row.dense_bytes = 3e9;
  return row;
}

}  // namespace

TEST_CASE("shapes are the product of their lists, group by group, defaults for what is left out") {
  const auto shapes = tools::parse_shapes("batch=1,16 kv_heads=8 tokens=64,128; kv_heads=2");
  REQUIRE(shapes.size() == 5);
  CHECK(shapes[0].batch() == 1);
  CHECK(shapes[1].tokens_text() == "128");
  CHECK(shapes[2].lengths == std::vector<std::int64_t>(16, 64));
  CHECK(shapes[3].total_tokens() == 16 * 128);
  CHECK(shapes[4].kv_heads == 2);
  CHECK(shapes[4].capacity == 32768);
  CHECK(std::none_of(shapes.begin(), shapes.end(), [](const auto& shape) { return shape.ragged; }));
  CHECK(tools::parse_shapes("").size() == 1);
}

TEST_CASE("ragged lengths have their bounds, equal steps of the logarithm, and one order everywhere") {
  const auto shape = tools::parse_shapes("batch=7 kv_heads=8 tokens=1024..65536").front();
  CHECK(shape.ragged);
  CHECK(shape.capacity == 65536);
  CHECK(shape.tokens_text() == "1024..65536");
  CHECK(shape.lengths == tools::ragged_shape(7, 8, 1024, 65536).lengths);
  auto sorted = shape.lengths;
  CHECK_FALSE(std::is_sorted(sorted.begin(), sorted.end()));
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == std::vector<std::int64_t>{1024, 2048, 4096, 8192, 16384, 32768, 65536});
  CHECK(tools::ragged_shape(1, 8, 1024, 65536).lengths == std::vector<std::int64_t>{65536});
}

TEST_CASE("a bad shape, budget or preset is named") {
  const auto shapes = [](const std::string& text) { return refusal([&] { tools::parse_shapes(text); }); };
  CHECK(shapes("tokens=12,x") == "shapes.tokens=x");
  CHECK(shapes("tokens=") == "shapes.tokens=");
  CHECK(shapes("tokens=0") == "shapes.tokens=0");
  CHECK(shapes("tokens=99999999999999999999") == "shapes.tokens=99999999999999999999");
  CHECK(shapes("tokens=64..32") == "shapes.tokens=64..32");
  CHECK(shapes("tokens=64..64") == "shapes.tokens=64..64");
  CHECK(shapes("tokens=64..") == "shapes.tokens=");
  CHECK(shapes("batch=-1") == "shapes.batch=-1");
  CHECK(shapes("kv_heads") == "shapes.kv_heads=");
  CHECK(shapes("heads=8") == "shapes=heads=8");
  CHECK(refusal([] { tools::parse_budgets("64,,128"); }) == "budgets=");
  CHECK(refusal([] { tools::bench_preset("all"); }) == "preset=all");
  CHECK(refusal([] { tools::key_pattern("zeros"); }) == "keys=zeros");
}

TEST_CASE("every preset parses, and keys given besides replace its own") {
  for (const tools::BenchPreset& preset : tools::bench_presets()) {
    CAPTURE(preset.name);
    CHECK(tools::bench_preset(preset.name).spec == preset.spec);
    CHECK_FALSE(tools::parse_shapes(preset.shapes).empty());
    for (const auto budget : tools::parse_budgets(preset.budgets))
      CHECK_NOTHROW(Spec::parse(tools::merge_spec(preset.spec, "budget=" + std::to_string(budget))));
  }
  const Spec merged = Spec::parse(tools::merge_spec("group=4 budget=128", "budget=64 buckets=2"));
  CHECK(merged == Spec::parse("group=4 budget=64 buckets=2"));
  CHECK(tools::names_key("group=4 budget=64", "budget"));
  CHECK_FALSE(tools::names_key("group=4 budget=64", "get"));
}

TEST_CASE("a layout gives each sequence pages of its own, and names the slot of its last token") {
  const auto shape = tools::parse_shapes("batch=3 kv_heads=2 tokens=10..100").front();
  for (const bool scattered : {false, true}) {
    CAPTURE(scattered);
    const auto layout = tools::lay_out(Spec::parse("page_size=16"), shape, scattered);
    CHECK(layout.table_stride == 7);
    CHECK(layout.capacity.max_slots == layout.slots);
    std::set<std::int32_t> used;
    for (std::size_t b = 0; b < 3; ++b) {
      const auto length = static_cast<std::size_t>(layout.lengths[b]);
      const auto* const pages = layout.table.data() + 7 * b;
      for (std::size_t p = 0; p * 16 < length; ++p)
        CHECK(used.insert(pages[p]).second);
      CHECK(layout.last_slots[b] == pages[(length - 1) / 16] * 16 + static_cast<int>((length - 1) % 16));
    }
    CHECK(static_cast<std::int64_t>(used.size()) * 16 == layout.slots);
    CHECK(*used.begin() == 0);
    CHECK(*used.rbegin() == static_cast<std::int32_t>(used.size()) - 1);
    const auto longest =
        std::max_element(layout.lengths.begin(), layout.lengths.end()) - layout.lengths.begin();
    const auto* const pages = layout.table.data() + 7 * longest;
    CHECK(std::is_sorted(pages, pages + 7) != scattered);
  }
}

TEST_CASE("contiguous caches are rows of the capacity, packed where lengths differ from it") {
  const Spec spec = Spec::parse("cache_form=contiguous");
  const auto rows = tools::lay_out(spec, tools::even_shape(3, 2, 100), false);
  CHECK(rows.capacity.max_slots == 0);
  CHECK(rows.starts.empty());
  CHECK(rows.slots == 300);
  CHECK(rows.page_tokens == 100);
  CHECK(rows.last_slots == std::vector<std::int32_t>{99, 199, 299});

  auto shape = tools::even_shape(2, 2, 100);
  shape.lengths[0] = 60;
  const auto packed = tools::lay_out(spec, shape, false);
  CHECK(packed.capacity.max_slots == 160);
  CHECK(packed.starts == std::vector<std::int32_t>{0, 60});
  CHECK(packed.last_slots == std::vector<std::int32_t>{59, 159});
}

TEST_CASE("as many caches in turn as cold steps need and memory holds") {
  CHECK(tools::rotated_sets(256e6, 1e9, 256e6, 20e9) == 2);
  CHECK(tools::rotated_sets(10e6, 136e6, 256e6, 20e9) == 27);
  CHECK(tools::rotated_sets(10e6, 136e6, 1e9, 20e9) == 101);
  CHECK(tools::rotated_sets(10e6, 136e6, 256e6, 1e9) == 7);
  CHECK(tools::rotated_sets(130e6, 34e9, 256e6, 20e9) == 1);  // one there must be
  CHECK(tools::rotated_sets(1e3, 1e3, 256e6, 20e9) == 512);
}

TEST_CASE("dense_below is where the two times meet") {
  // Equal at 1024.
  CHECK(tools::recommend_dense_below({point(512, 4, 2), point(1024, 4, 4), point(2048, 4, 8)}, 128) == 1024);
  // Twice as slow at 512, twice as fast at 2048: halfway on logarithmic scales.
  CHECK(tools::recommend_dense_below({point(512, 4, 2), point(2048, 4, 8)}, 128) == 1024);
  // Dense won last at 1024, though not at 512.
  CHECK(tools::recommend_dense_below({point(512, 4, 8), point(1024, 4, 2), point(2048, 4, 8)}, 128) == 1448);
  // Selection always won: up to the budget it selects everything.
  CHECK(tools::recommend_dense_below({point(256, 1, 2), point(512, 1, 2)}, 128) == 128);
  CHECK(tools::recommend_dense_below({point(256, 2, 1), point(512, 2, 1)}, 128) == 512);
}

TEST_CASE("dense times are found by shape, the fastest of several; ragged batches have the ideal") {
  const ScratchFolder folder;
  const auto path = dense_file(
      folder,
      R"({"batch": 1, "query_heads": 32, "kv_heads": 8, "tokens": 64, "head_dim": 128, "us": 50.5, "backend": "flash gqa"}

{"batch": 1, "query_heads": 32, "kv_heads": 8, "tokens": 64, "head_dim": 128, "us": 40, "backend": "cudnn packed", "more": 1}
)");
  const auto references = tools::DenseReferences::read(path);
  const auto found = references.find(row_of(tools::even_shape(1, 8, 64)), 3000);
  REQUIRE(found);
  CHECK(found->us == 40);
  CHECK(found->by == "cudnn packed");
  CHECK_FALSE(references.find(row_of(tools::even_shape(2, 8, 64)), 3000));
  const auto ideal = references.find(row_of(tools::ragged_shape(4, 8, 16, 64)), 3000);
  REQUIRE(ideal);
  CHECK(ideal->us == doctest::Approx(1000));
  CHECK(ideal->by == "ideal");
}

TEST_CASE("a file of dense times that cannot be read is named with the line at fault") {
  const ScratchFolder folder;
  const auto message = [](const std::string& path) {
    try {
      tools::DenseReferences::read(path);
    } catch (const Error& error) {
      CHECK(error.code() == ADAMAS_IO_ERROR);
      CHECK(error.value() == path);
      return error.rule();
    }
    return std::string("none");
  };
  CHECK(message(folder / "absent").starts_with("cannot be read"));
  const std::string shape = R"("batch": 1, "query_heads": 32, "kv_heads": 8, "tokens": 64, "head_dim": 128)";
  CHECK(message(dense_file(folder, "\n{")).starts_with("line 2: "));
  CHECK(message(dense_file(folder, "{" + shape + "}")).find("us") != std::string::npos);
  CHECK(message(dense_file(folder, "{" + shape + R"(, "us": "fast", "backend": "x"})"))
            .starts_with("line 1: "));
  CHECK(message(dense_file(folder, "{" + shape + R"(, "us": 0, "backend": "x"})")) ==
        "line 1: us must be positive");
  CHECK(message(dense_file(folder, "[]")).starts_with("line 1: "));
}
