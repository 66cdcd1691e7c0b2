// The CPU generator: what it refuses, its sizes and bounds for every Spec, and the shape of its text.
#include <doctest/doctest.h>

#include <string>

#include "codegen/cpu_layout.hpp"
#include "codegen/cpu_source.hpp"
#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/generator.hpp"
#include "codegen/templates.hpp"

using namespace adamas::codegen;

namespace {

constexpr char kTarget[] = "x86-64-v3";

Spec spec_of(const std::string& text) { return Spec::parse(text); }

std::string emit(const Spec& spec, Unit unit) {
  return cpu_generator().emit(spec, cpu_generator().default_tuning(spec, kTarget), kTarget, unit);
}

/// Runs `use` for every combination that changes codes or sums.
template <class Use>
void for_scan_shapes(Use use) {
  for (int dim = 16; dim <= 512; dim += 16) {
    for (const int buckets : {2, 4, 8, 16}) {
      use(spec_of(fmt::format("head_dim={} buckets={} estimator=manhattan", dim, buckets)));
      for (int bits = 3; bits <= 8; ++bits) {
        use(spec_of(fmt::format("head_dim={} buckets={} query_bits={}", dim, buckets, bits)));
      }
    }
  }
}

}  // namespace

TEST_CASE("CPU generator: every type of K and V, every cache form and kind of table") {
  for (const char* accepted :
       {"", "kv_type=f32", "kv_type=bf16 cache_form=contiguous", "kv_type=f8e4m3fn cache_form=csr",
        "kv_type=q8_0 cache_form=slots", "cache_form=pointers tables=split"}) {
    const Spec spec = spec_of(accepted);
    CHECK_NOTHROW(cpu_generator().check(spec, cpu_generator().default_tuning(spec, kTarget), kTarget));
  }
}

TEST_CASE("CPU generator: refuses by name the scan of another backend") {
  Tuning tuning = cpu_generator().default_tuning(spec_of(""), kTarget);
  tuning.scan = "popc";
  try {
    cpu_generator().check(spec_of(""), tuning, kTarget);
    FAIL("accepted scan=popc");
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_UNSUPPORTED);
    CHECK(error.field() == "scan");
    CHECK(!error.hint().empty());
  }
}

TEST_CASE(
    "CPU generator: codes take log2(buckets) bits an element, in the largest tile that divides the page") {
  for_scan_shapes([](const Spec& spec) {
    CHECK(cpu_generator().code_row_bytes(spec) == spec.head_dim * facts_of(spec).code_bits / 8);
  });
  struct Tiles {
    int page, tile;
  };
  for (const auto& [page, tile] : {Tiles{1, 1}, Tiles{8, 1}, Tiles{16, 16}, Tiles{17, 1}, Tiles{32, 32},
                                   Tiles{48, 16}, Tiles{64, 64}, Tiles{96, 32}, Tiles{1024, 64}}) {
    const Spec spec = spec_of(fmt::format("page_size={}", page));
    CHECK(cpu_code_layout(spec).tile_tokens == tile);
    const CodeStrides strides = cpu_generator().code_strides(spec, 3, page);
    CHECK(strides.head == page * 32);
    CHECK(strides.page == 3 * strides.head);
  }
  // A contiguous row is padded to whole tiles.
  const Spec contiguous = spec_of("cache_form=contiguous");
  CHECK(cpu_generator().code_strides(contiguous, 2, 65).head == 128 * 32);
  CHECK(cpu_generator().code_strides(contiguous, 2, 64).head == 64 * 32);

  CHECK(cpu_generator().layout_id(spec_of("page_size=64")) == "cpu/nibble-tile64/b4/d128/v1");
  CHECK(cpu_generator().layout_id(spec_of("page_size=1 buckets=8")) == "cpu/nibble-rows/b8/d128/v1");
  CHECK(cpu_generator().layout_id(spec_of("cache_form=slots")) == "cpu/nibble-rows/b4/d128/v1");
  CHECK(cpu_generator().layout_id(spec_of("cache_form=csr page_size=32")) == "cpu/nibble-tile32/b4/d128/v1");
}

TEST_CASE("CPU generator: no sum of table entries overflows") {
  for_scan_shapes([](const Spec& spec) {
    std::vector<CpuScanLayout> layouts{cpu_scan_layout(spec)};
    if (const auto wide = cpu_wide_scan_layout(spec)) layouts.push_back(*wide);
    for (const CpuScanLayout& scan : layouts) {
      const Facts facts = facts_of(spec);
      const int rows = cpu_code_layout(spec).row_bytes, units = scan.units;
      const int low_max = scan.planes == 1 ? scan.entry_max : (1 << scan.plane_shift) - 1;
      const int high_max = scan.planes == 1 ? 0 : scan.entry_max >> scan.plane_shift;
      INFO(spec.text());
      if (scan.table_entries == 16) {
        CHECK(units * scan.unit_rows == rows);
      } else {  // the last unit may lack rows
        CHECK(units * scan.unit_rows >= rows);
        CHECK((units - 1) * scan.unit_rows < rows);
      }
      for (const int plane_max : {low_max, high_max}) {
        CHECK(scan.units_per_sum * scan.unit_tables * plane_max <= 255);
        CHECK(units * scan.unit_tables * plane_max <= 65535);
      }
      CHECK(scan.units_per_sum >= 1);
      // The largest score must be reachable: entries are not bounded too low.
      CHECK(units * scan.unit_tables * scan.entry_max >= (facts.key_limit + 1) / 2);
      CHECK(scan.table_bytes == units * scan.unit_tables * scan.planes * scan.table_entries);
      CHECK(cpu_generator().prepared_query_bytes(spec) >= 64 + scan.table_bytes);
      CHECK(cpu_generator().prepared_query_bytes(spec) % 64 == 0);
    }
  });
}

TEST_CASE("CPU generator: grids cover every slot, token, row and chunk") {
  const Spec spec = spec_of("group=3 query_rows=2");
  const Tuning tuning = cpu_generator().default_tuning(spec, kTarget);
  const Shape shape{.batch = 5, .kv_heads = 2, .max_tokens = 3 * tuning.scan_tile, .slots = 65, .chunks = 7};
  const auto grid = [&](Stage stage) { return cpu_generator().grid(stage, spec, tuning, shape); };

  for (const Stage stage : {Stage::encode, Stage::export_codes, Stage::import_codes, Stage::check_codes}) {
    CHECK(grid(stage).x == 2);
    CHECK(grid(stage).y == 2);
    CHECK(grid(stage).z == 1);
  }
  CHECK(grid(Stage::prepare_query).y == 2);
  // Position 0 may be the last of a strip of 64: max_tokens tokens then reach into a fourth tile.
  CHECK(grid(Stage::scan).x == 4);
  CHECK(grid(Stage::scan).y == 2);
  CHECK(grid(Stage::select).y == 6);
  CHECK(grid(Stage::attend).x == 7);
  CHECK(grid(Stage::attend).y == 2);
  CHECK(grid(Stage::merge).y == 6);
  for (const Stage stage : {Stage::prepare_query, Stage::scan, Stage::select, Stage::attend, Stage::merge}) {
    CHECK(grid(stage).z == 10);
    CHECK(grid(stage).threads == 1);
    CHECK(grid(stage).shared_bytes == 0);
  }
}

TEST_CASE("CPU generator: text is deterministic, says what it is for, and needs no file") {
  const Spec spec = spec_of("head_dim=96 group=5 buckets=8");
  for (const Unit unit : cpu_generator().units(spec, {}, kTarget)) {
    const std::string text = emit(spec, unit);
    CHECK(text == emit(spec, unit));
    CHECK(text.find("#include") == std::string::npos);
    CHECK(text.find(spec.text()) != std::string::npos);
    CHECK(text.find(cpu_generator().default_tuning(spec, kTarget).text()) != std::string::npos);
    CHECK(text.find(kTarget) != std::string::npos);
    CHECK(text.find("static_assert(sizeof(adamas_abi::Args)") != std::string::npos);
    for (const Stage stage : kStages) {
      const bool defined = text.find("ADAMAS_STAGE " + entry_name(stage) + "(") != std::string::npos;
      CHECK(defined == (unit_of(stage) == unit));
    }
  }
}

TEST_CASE("CPU generator: the examples beside the templates are what it writes for the default Spec") {
  const Spec spec = spec_of("");
  const Tuning tuning = cpu_generator().default_tuning(spec, kTarget);
  CHECK(embedded_template("cpu/example_constants.hpp").ends_with("\n" + cpu_constants(spec, tuning)));
  CHECK(embedded_template("cpu/example_codes.hpp").ends_with("\n" + cpu_code_functions(spec)));
  CHECK(embedded_template("cpu/example_scan.hpp").ends_with("\n" + cpu_scan_functions(spec)));
}
