// `adamas eval` on the bundled sample reproduces the design's accuracy table on the CPU; dumps that cannot be
// are refused by name; thresholds survive a file.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "codegen/error.hpp"
#include "tests/tools/sample_accuracy.hpp"

namespace adamas::tests {
namespace {

struct TemporaryFile {
  std::string path = "/tmp/adamas-evaluate-XXXXXX";
  TemporaryFile() { close(mkstemp(path.data())); }
  ~TemporaryFile() { std::remove(path.c_str()); }
};

/// A dump of one layer whose tensors have these shapes.
void write_dump(const std::string& path, std::vector<std::uint64_t> q, std::vector<std::uint64_t> k,
                std::vector<std::uint64_t> v) {
  const std::vector<std::byte> zeros(1 << 20);
  std::vector<tools::TensorData> tensors;
  for (const auto& [name, shape] : {std::pair{"layer3.q", q}, {"layer3.k", k}, {"layer3.v", v}}) {
    tensors.push_back({name, tools::DType::kF16, shape,
                       std::span(zeros).first(*tools::tensor_bytes(tools::DType::kF16, shape))});
  }
  tools::write_safetensors(path, tensors);
}

std::string refusal(const std::string& path) {
  try {
    tools::load_dump(path);
  } catch (const codegen::Error& error) {
    CHECK(error.code() == ADAMAS_IO_ERROR);
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("the sample's accuracy on the CPU") { check_sample_accuracy("cpu"); }

TEST_CASE("dumps that cannot be are refused by tensor and rule") {
  const TemporaryFile file;
  write_dump(file.path, {2, 4, 64}, {8, 2, 64}, {8, 2, 32});
  const auto layers = tools::load_dump(file.path);
  REQUIRE(layers.size() == 1);
  CHECK(layers[0].index == 3);
  CHECK(layers[0].group() == 2);
  CHECK(layers[0].value_dim == 32);
  CHECK(layers[0].visible(0) == 7);

  write_dump(file.path, {2, 3, 64}, {8, 2, 64}, {8, 2, 64});
  CHECK(refusal(file.path).find("layer3.q") != std::string::npos);
  write_dump(file.path, {9, 4, 64}, {8, 2, 64}, {8, 2, 64});
  CHECK(refusal(file.path).find("more queries") != std::string::npos);
  write_dump(file.path, {2, 4, 32}, {8, 2, 64}, {8, 2, 64});
  CHECK(refusal(file.path).find("head_dim") != std::string::npos);
  write_dump(file.path, {2, 4, 64}, {8, 2, 64}, {7, 2, 64});
  CHECK(refusal(file.path).find("layer3.v") != std::string::npos);
  tools::write_safetensors(file.path, {});
  CHECK(refusal(file.path).find("layerN.q") != std::string::npos);
}

TEST_CASE("thresholds from a file are those that were calibrated") {
  const auto layers = tools::load_dump(tools::sample_path());
  const auto spec = codegen::Spec::parse(layers[0].spec_text() + " estimator=manhattan");
  const auto made = tools::calibrate_layer(layers[0], spec);
  const TemporaryFile file;
  const std::vector<std::uint64_t> shape{3, 3};
  tools::write_safetensors(
      file.path,
      {{"layer14.key_thresholds", tools::DType::kF32, shape, std::as_bytes(std::span(made.key))},
       {"layer14.query_thresholds", tools::DType::kF32, shape, std::as_bytes(std::span(made.query))}});
  const auto opened = tools::SafetensorsFile::open(file.path);
  const auto read = tools::load_thresholds(opened, layers[0], spec);
  CHECK(read.key == made.key);
  CHECK(read.query == made.query);
  const auto wider = codegen::Spec::parse(layers[0].spec_text() + " buckets=8");
  CHECK_THROWS_AS(tools::load_thresholds(opened, layers[0], wider), codegen::Error);
}

}  // namespace adamas::tests
