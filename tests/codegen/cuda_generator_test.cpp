// The CUDA generator: what it emits, refuses and decides. Whether the emitted kernels are right is the matter
// of tests/cuda_emulation and of the GPU tests.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "codegen/cuda_facts.hpp"
#include "codegen/cuda_source.hpp"
#include "codegen/error.hpp"
#include "codegen/generator.hpp"
#include "codegen/round.hpp"
#include "codegen/templates.hpp"

namespace {

using namespace adamas::codegen;

constexpr const char* kTarget = "sm_90a";

Tuning tuning_of(const Spec& spec, const std::string& text = "") {
  return Tuning::parse(text, spec, kTarget);
}

/// The error that check gives, or one with an empty field.
Error refusal(const std::string& spec_text, const std::string& tuning_text = "",
              const char* target = kTarget) {
  const Spec spec = Spec::parse(spec_text);
  try {
    cuda_generator().check(spec, Tuning::parse(tuning_text, spec, target), target);
  } catch (const Error& error) {
    return error;
  }
  return Error(ADAMAS_OK, "", "", "");
}

TEST_CASE("cuda: the example that editors read is what the generator writes for the default Spec") {
  const Spec spec = Spec::parse("");
  const std::string generated = cuda_specialization(spec, tuning_of(spec), kUnits);
  const std::string_view example = embedded_template("cuda/example.cuh");
  REQUIRE(example.size() > generated.size());
  CHECK(example.substr(example.size() - generated.size()) == generated);
}

TEST_CASE("cuda: a unit is complete, deterministic, and includes nothing") {
  for (const char* text :
       {"", "head_dim=80 group=5 buckets=16 estimator=manhattan", "cache_form=contiguous"}) {
    const Spec spec = Spec::parse(text);
    for (const Unit unit : cuda_generator().units(spec, tuning_of(spec), kTarget)) {
      const std::string source = cuda_generator().emit(spec, tuning_of(spec), kTarget, unit);
      CHECK(source == cuda_generator().emit(Spec::parse(spec.text()), tuning_of(spec), kTarget, unit));
      CHECK(source.find("#include") == std::string::npos);
      CHECK(source.find("#pragma once") == std::string::npos);
      CHECK(source.find("// Spec: " + spec.text() + "\n") != std::string::npos);
      CHECK(source.find("// Tuning: " + tuning_of(spec).text() + "\n") != std::string::npos);
      for (const Stage stage : kStages) {
        const bool defined =
            source.find(entry_name(stage) + "(const __grid_constant__ Args args) {") != std::string::npos;
        CHECK(defined == (unit_of(stage) == unit));
      }
    }
  }
}

TEST_CASE("cuda: formulas are those of the Spec") {
  const auto formulas = [](const char* text) {
    const Spec spec = Spec::parse(text);
    return cuda_specialization(spec, tuning_of(spec), kUnits);
  };
  // 80 = 20 * 4: two butterflies, then the written matrix across.
  const std::string mixed = formulas("head_dim=80 buckets=2 estimator=manhattan");
  CHECK(mixed.find("  butterfly<2>(x);\n  mix<20, 4, kHeadDim>(x, kHadamardSigns, scratch);\n") !=
        std::string::npos);
  CHECK(mixed.find("0x615e5") != std::string::npos);
  CHECK(mixed.find("distance += __popc(c0 ^ q0);") != std::string::npos);
  // The middle plane of four thermometer planes is the top bit; those around it take the low bit in.
  const std::string manhattan = formulas("estimator=manhattan");
  CHECK(manhattan.find("__popc((c1 | c0) ^ q0)") != std::string::npos);
  CHECK(manhattan.find("__popc(c1 ^ q1)") != std::string::npos);
  CHECK(manhattan.find("__popc((c1 & c0) ^ q2)") != std::string::npos);
  // The sign plane counts negative.
  const std::string dot = formulas("buckets=2 query_bits=3");
  CHECK(dot.find("a2 = a2 - __popc(q2 & c0);") != std::string::npos);
  CHECK(dot.find("return 2 * (a0 + 2 * a1 + 4 * a2);") != std::string::npos);
}

TEST_CASE("cuda: what cannot be generated is refused by name") {
  const auto refused = [](const std::string& spec, const std::string& field) {
    const Error error = refusal(spec);
    CAPTURE(spec);
    CHECK(error.code() == ADAMAS_UNSUPPORTED);
    CHECK(error.field() == field);
    CHECK(!error.hint().empty());
  };
  refused("kv_type=q8_0 q_type=f16 out_type=f16", "kv_type");
  refused("kv_type=f32", "kv_type");
  CHECK(refusal("").field().empty());
}

TEST_CASE("cuda: Tunings that no block can hold are refused before a compile") {
  CHECK(refusal("", "threads=1024").field() == "threads");
  // Element by element logits wait in shared memory; on tensor cores a chunk may have any length.
  const Error error = refusal("group=8 kv_type=f8e4m3fn", "dense_chunk=16384");
  CHECK(error.code() == ADAMAS_INVALID_SPEC);
  CHECK(error.field() == "dense_chunk");
  // The limit is the architecture's.
  CHECK(refusal("group=8 kv_type=f8e4m3fn", "dense_chunk=3072", "sm_86").field() == "dense_chunk");
  CHECK(refusal("group=8 kv_type=f8e4m3fn", "dense_chunk=3072", "sm_90a").field().empty());
  CHECK(refusal("group=8", "dense_chunk=16384", "sm_86").field().empty());
}

TEST_CASE("cuda: rows that attend to all have no more chunks than their workspace") {
  for (const int most : {64, 512, 2048, 4096}) {
    const Tuning tuning = tuning_of(Spec::parse(""), "dense_chunk=" + std::to_string(most));
    const int step = cuda_dense_chunk_step(tuning), least = cuda_least_dense_chunk(tuning);
    CHECK(least <= most);
    for (const int kv_heads : {1, 2, 3, 8, 32, 300}) {
      std::int64_t chunks = 0;
      for (std::int64_t tokens = 1; tokens < 200'000; tokens += tokens < 5000 ? 1 : 997) {
        // dense_chunk_tokens of templates/cuda/partial.cuh.
        const std::int64_t share = ceil_div(tokens * kv_heads, kCudaDenseBlocks);
        const std::int64_t chunk = std::clamp<std::int64_t>(round_up(share, step), least, most);
        chunks = std::max(chunks, ceil_div(tokens, chunk));
        CAPTURE(tokens);
        CAPTURE(kv_heads);
        CAPTURE(most);
        REQUIRE(chunks <= cuda_dense_chunks(tuning, kv_heads, tokens));
      }
    }
  }
}

TEST_CASE("cuda: default Tunings fit every architecture, and cut lists alike on all of them") {
  for (const int dim : {16, 80, 128, 256, 512}) {
    for (const int group : {1, 2, 5, 8, 9, 32}) {
      for (const char* scope : {"query_head", "kv_head"}) {
        const Spec spec = Spec::parse("head_dim=" + std::to_string(dim) + " group=" + std::to_string(group) +
                                      " scope=" + scope);
        CAPTURE(spec.text());
        for (const char* target : {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"}) {
          CHECK(refusal(spec.text(), "", target).field().empty());
          Tuning tuning = cuda_generator().default_tuning(spec, target);
          const Tuning reference = cuda_generator().default_tuning(spec, kTarget);
          tuning.schedule = reference.schedule;  // a result's bits do not depend on it
          CHECK(tuning == reference);
        }
      }
    }
  }
}

TEST_CASE("cuda: grids cover the work, and say so when a launch cannot") {
  const Spec spec = Spec::parse("group=4 query_rows=2 budget=100");
  const Tuning tuning = tuning_of(spec, "scan_tile=512 chunk=32 dense_chunk=256 threads=128");
  const Generator& cuda = cuda_generator();
  const Shape shape{.batch = 3, .kv_heads = 5, .max_tokens = 1025, .slots = 65, .chunks = 40};
  const auto covers = [&](Stage stage, std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    const Grid grid = cuda.grid(stage, spec, tuning, shape);
    CAPTURE(name(stage));
    CHECK(grid.x == x);
    CHECK(grid.y == y);
    CHECK(grid.z == z);
  };
  covers(Stage::encode, 2, 5, 1);  // 64 slots a block
  covers(Stage::import_codes, 2, 5, 1);
  covers(Stage::check_codes, 2, 5, 1);
  covers(Stage::prepare_query, 1, 5, 6);
  covers(Stage::scan, 3, 5, 6);
  covers(Stage::select, 1, 20, 6);
  covers(Stage::attend, 10, 20, 6);  // 40 dense chunks dealt to 4 selections; 4 chunks of a list
  covers(Stage::merge, 1, 20, 6);
  // Keys whose words are not a power of two are encoded one after the other: 16 slots a block.
  CHECK(cuda.grid(Stage::encode, Spec::parse("head_dim=80"), tuning, shape).x == 5);
  // Where the device is known, no more blocks than run at once: 4 a multiprocessor, one at least.
  const auto encode_blocks = [&](int kv_heads, std::int64_t slots) {
    return cuda.grid(Stage::encode, spec, tuning, {.kv_heads = kv_heads, .slots = slots, .processors = 10}).x;
  };
  CHECK(encode_blocks(5, 65) == 2);
  CHECK(encode_blocks(5, 1 << 20) == 8);
  CHECK(encode_blocks(100, 1 << 20) == 1);
  CHECK(cuda.grid(Stage::attend, spec, tuning, {.batch = 1, .kv_heads = 1, .chunks = 4}).x == 4);
  CHECK(cuda.grid(Stage::attend, spec, tuning, shape).shared_bytes == cuda_attend_shared_bytes(spec, tuning));
  CHECK(cuda.grid(Stage::scan, spec, tuning, shape).threads == 128);

  CHECK_THROWS_AS(cuda.grid(Stage::merge, spec, tuning, {.batch = 40000, .kv_heads = 1}), Error);
  CHECK_THROWS_AS(cuda.grid(Stage::prepare_query, spec, tuning, {.batch = 1, .kv_heads = 20000}), Error);
}

TEST_CASE("cuda: the code layout follows from the Spec and has an id of its own") {
  const Generator& cuda = cuda_generator();
  const Spec spec = Spec::parse("head_dim=80 buckets=8 page_size=48");
  CHECK(cuda.layout_id(spec) == "cuda/planes/b8/d80/p48/v1");
  CHECK(cuda.layout_id(Spec::parse("cache_form=contiguous")) == "cuda/planes/b4/d128/rows/v1");
  CHECK(cuda.layout_id(Spec::parse("cache_form=csr page_size=64")) == "cuda/planes/b4/d128/p64/v1");
  CHECK(cuda.layout_id(Spec::parse("cache_form=slots")) == "cuda/planes/b4/d128/p1/v1");
  CHECK(cuda.code_row_bytes(spec) == 3 * 3 * 4);  // 3 planes of 3 words
  const CodeStrides strides = cuda.code_strides(spec, 7, 48);
  CHECK(strides.plane == 48 * 12);
  CHECK(strides.head == 3 * strides.plane);
  CHECK(strides.page == 7 * strides.head);
  CHECK(cuda.prepared_query_bytes(Spec::parse("")) ==
        128);  // 4 planes of 16 bytes and a bias, in steps of 64
}

}  // namespace
