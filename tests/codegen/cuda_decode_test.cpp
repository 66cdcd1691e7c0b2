// The decode kernel's launches: which kernel sets have it, and how a shape becomes clusters.
#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "codegen/cuda_decode.hpp"
#include "codegen/cuda_facts.hpp"

namespace adamas::codegen {
namespace {

constexpr const char* kTarget = "sm_90a";
constexpr int kProcessors = 132;

bool has_decode(const std::string& spec_text, const std::string& tuning = "", const char* target = kTarget) {
  const Spec spec = Spec::parse(spec_text);
  return !cuda_decode_units(spec, Tuning::parse(tuning, spec, target), target).empty();
}

std::optional<Grid> grid_of(const std::string& spec_text, int batch, int kv_heads, std::int64_t tokens,
                            const std::string& tuning = "") {
  const Spec spec = Spec::parse(spec_text);
  return cuda_decode_grid(
      spec, Tuning::parse(tuning, spec, kTarget), kTarget,
      {.batch = batch, .kv_heads = kv_heads, .max_tokens = tokens, .processors = kProcessors});
}

TEST_CASE("cuda decode: which kernel sets have it") {
  CHECK(has_decode(""));
  CHECK(has_decode("", "", "sm_90"));
  CHECK_FALSE(has_decode("", "schedule=stages"));
  CHECK_FALSE(has_decode("", "", "sm_80"));    // no clusters
  CHECK_FALSE(has_decode("", "", "sm_100a"));  // binary tensor-core operations are emulated
  CHECK(has_decode("", "schedule=cluster", "sm_100a"));
  CHECK(has_decode("group=8"));
  CHECK(has_decode("group=9"));
  CHECK(has_decode("group=9 scope=kv_head"));  // one list a K/V head
  CHECK(has_decode("group=32"));
  CHECK(has_decode("budget=1024"));
  CHECK_FALSE(has_decode("budget=1025"));
  CHECK(has_decode("head_dim=256"));
  CHECK_FALSE(has_decode("head_dim=256 value_dim=272"));
}

TEST_CASE("cuda decode: large groups are cut into parts of few lists, which have clusters of their own") {
  const auto part = [](int group, const std::string& scope = "query_head") {
    return cuda_decode_spec(Spec::parse("group=" + std::to_string(group) + " scope=" + scope), Unit::decode)
        .group;
  };
  for (const auto& [group, lists] : {std::pair{1, 1},
                                     {2, 2},
                                     {3, 3},
                                     {4, 4},
                                     {5, 5},
                                     {6, 3},
                                     {7, 7},
                                     {8, 4},
                                     {9, 3},
                                     {10, 5},
                                     {11, 1},
                                     {12, 4},
                                     {14, 7},
                                     {16, 4},
                                     {26, 2},
                                     {32, 4}}) {
    CAPTURE(group);
    CHECK(part(group) == lists);
    CHECK(part(group, "kv_head") == group);  // they share one list
    CHECK(grid_of("group=" + std::to_string(group), 1, 2, 8192)->y ==
          static_cast<unsigned>(2 * group / lists));
  }
}

TEST_CASE("cuda decode: long rows have clusters of fewer lists") {
  const auto stage = [](const std::string& spec, std::int64_t tokens) {
    const auto grid = grid_of(spec, 1, 8, tokens);
    REQUIRE(grid);
    const Spec parsed = Spec::parse(spec);
    const Tuning tuning = Tuning::parse("", parsed, kTarget);
    const Shape shape{.batch = 64, .kv_heads = 8, .max_tokens = tokens, .processors = kProcessors};
    for (const Unit unit : cuda_decode_units(parsed, tuning, kTarget)) {
      CAPTURE(std::string(name(unit)));
      CHECK(cuda_decode_may_launch(unit, parsed, tuning, kTarget, shape) ==
            (unit == Unit::decode_pair ? grid->stage != Stage::decode_long : unit == unit_of(grid->stage)));
    }
    return grid->stage;
  };
  CHECK(stage("group=4", 131072) == Stage::decode);
  CHECK(stage("group=4", 262144) == Stage::decode_long);
  CHECK(stage("group=7", 65536) == Stage::decode);
  CHECK(stage("group=7", 131072) == Stage::decode_long);
  CHECK(stage("group=7", 524288) == Stage::decode_long);  // one list a cluster
  CHECK(stage("group=16", 262144) == Stage::decode_long);
  CHECK(stage("group=2", 262144) == Stage::decode);
  CHECK(stage("", 524288) == Stage::decode);
  CHECK_FALSE(grid_of("group=4", 1, 8, 524288));
}

TEST_CASE("cuda decode: as many blocks a cluster as run at once, and no fewer than scores need") {
  // 32 clusters of 4 blocks would not find room on 132 multiprocessors.
  CHECK(grid_of("", 1, 32, 32768)->cluster == 3);
  CHECK(grid_of("", 1, 32, 131072)->cluster == 3);
  CHECK(grid_of("group=4", 1, 8, 32768)->cluster == 8);
  // More rows than run at once: the smallest cluster that holds the scores.
  CHECK(grid_of("group=4", 16, 8, 32768)->cluster == 2);
  CHECK(grid_of("group=4", 16, 8, 65536)->cluster == 4);
  CHECK(grid_of("", 64, 32, 4096)->cluster == 1);
  // Parts of a cluster answer short rows where not all clusters run at once, and a part has few tokens to
  // attend to.
  CHECK(grid_of("group=4", 1, 8, 32768)->smallest_part == 8);
  CHECK(grid_of("group=4", 32, 8, 65536)->smallest_part == 1);
  CHECK(grid_of("", 8, 32, 32768, "cluster=3")->smallest_part == 1);
  CHECK(grid_of("budget=1024", 8, 32, 32768, "cluster=2")->smallest_part == 2);
  // What the caller says, where it fits.
  CHECK(grid_of("group=4", 1, 8, 32768, "cluster=4")->cluster == 4);
  CHECK_FALSE(grid_of("group=4", 1, 8, 131072, "cluster=2"));
  // Beyond the largest cluster.
  CHECK(grid_of("group=8", 1, 8, 32768));
  CHECK(grid_of("group=8", 1, 8, 131072));
  CHECK_FALSE(grid_of("", 1, 65536, 1024));
  CHECK_FALSE(grid_of("group=32", 1, 8192, 1024));
}

TEST_CASE("cuda decode: two small blocks share a multiprocessor that answers several rows") {
  const auto many = grid_of("", 16, 32, 8192);
  CHECK(many->stage == Stage::decode_pair);
  CHECK(many->threads == 256);
  CHECK(2 * (many->shared_bytes + 1024) <= cuda_shared_limit(90) + 1024);
  CHECK(grid_of("", 5, 32, 8192)->stage == Stage::decode_pair);
  CHECK(grid_of("", 32, 32, 32768)->stage == Stage::decode_pair);
  CHECK(grid_of("group=8 scope=kv_head", 64, 8, 8192)->stage == Stage::decode_pair);
  // Not where each has one row, few long ones, lists that share a small block, or where the caller says
  // otherwise.
  CHECK(grid_of("", 4, 32, 8192)->stage == Stage::decode);
  CHECK(grid_of("", 8, 32, 32768)->stage == Stage::decode);
  CHECK(grid_of("group=4", 64, 8, 8192)->stage == Stage::decode);
  CHECK(grid_of("", 16, 32, 8192, "decode_threads=512")->stage == Stage::decode);
  CHECK(grid_of("", 16, 32, 8192, "decode_threads=256")->stage == Stage::decode);
  CHECK(grid_of("", 16, 32, 8192, "cluster=2")->stage == Stage::decode);
}

TEST_CASE("cuda decode: a grid is whole clusters within the shared memory of a block") {
  for (const char* spec :
       {"", "group=8 budget=1024", "group=12 scope=kv_head", "head_dim=80 group=5 buckets=16 query_bits=8",
        "head_dim=256 estimator=manhattan query_rows=3"}) {
    CAPTURE(spec);
    for (const std::int64_t tokens : {1, 64, 1000, 8192, 32768}) {
      CAPTURE(tokens);
      const auto grid = grid_of(spec, 3, 4, tokens);
      REQUIRE(grid);
      CHECK(grid->x == grid->cluster);
      const Spec parsed = Spec::parse(spec);
      const int parts = parsed.group / cuda_decode_spec(parsed, Unit::decode).group;
      CHECK(grid->y == 4U * static_cast<unsigned>(parts));
      CHECK(grid->z == 3U * static_cast<unsigned>(parsed.query_rows));
      CHECK(grid->threads == 512);
      CHECK((grid->ring_stages == 1 || grid->ring_stages == 2 || grid->ring_stages == 4));
      CHECK(grid->shared_bytes <= cuda_shared_limit(90));
      // Rings of codes begin at a row of banks: askew, copies into them take longer.
      const CudaDecode decode = cuda_decode_of(parsed, Tuning::parse("", parsed, kTarget), Unit::decode);
      const auto rings = grid->ring_stages * (grid->threads / 32) * static_cast<unsigned>(decode.piece_bytes);
      CHECK((grid->shared_bytes - rings) % 128 == 0);
    }
  }
}

}  // namespace
}  // namespace adamas::codegen
