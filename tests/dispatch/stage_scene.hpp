// The host's side of a StageCase: what lies in memory, where, and what each stage must make of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "codegen/generator.hpp"
#include "templates/args.h"
#include "tests/dispatch/cpu_stages.hpp"
#include "tests/dispatch/guarded_memory.hpp"
#include "tests/dispatch/stage_kernels.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::tests {

inline void put(oracle::Format format, void* to, std::int64_t index, float value) {
  if (format == oracle::Format::kF32) {
    static_cast<float*>(to)[index] = value;
  } else {
    static_cast<std::uint16_t*>(to)[index] =
        format == oracle::Format::kF16 ? oracle::to_f16(value) : oracle::to_bf16(value);
  }
}

inline float get(oracle::Format format, const void* from, std::int64_t index) {
  if (format == oracle::Format::kF32) return static_cast<const float*>(from)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(from)[index];
  return format == oracle::Format::kF16 ? oracle::from_f16(bits) : oracle::from_bf16(bits);
}

inline int bytes_of(oracle::Format format) { return format == oracle::Format::kF32 ? 4 : 2; }

/// The host's side of a call: buffers, tables, and the oracle's view of the same data.
class StageScene {
 public:
  explicit StageScene(const StageCase& stage_case);

  void check_codes();
  void check_selection();
  void check_kept_keys();
  void check_attention();
  void check_wild_data();

 private:
  /// Elements from a row of K, V, the query or the output to the next.
  std::int64_t row_stride(int dim) const { return dim + (case_.element_aligned ? 1 : 0); }
  void place_sequences();
  void write_cache();
  std::int64_t slot(int sequence, std::int64_t position) const;
  void run(codegen::Stage stage, bool backwards = false) {
    kernels_.run(stage, generator_.grid(stage, spec_, tuning_, shape_), args_, backwards);
  }
  void run_attention(std::int64_t chunks, bool backwards = false);
  std::int64_t decode_chunks() const;
  std::vector<unsigned char> output_bytes(int rows) const;
  void check_rows(const std::vector<oracle::Output>& want, const char* what);
  Guarded* keep(std::unique_ptr<Guarded> buffer) {
    buffers_.push_back(std::move(buffer));
    return buffers_.back().get();
  }
  Guarded* keep(std::size_t bytes) { return keep(std::make_unique<Guarded>(bytes)); }

  const StageCase& case_;
  const codegen::Generator& generator_ = codegen::cpu_generator();
  const codegen::Spec spec_;
  const codegen::Tuning tuning_;
  const codegen::Facts facts_;
  const oracle::Config config_;
  const StageKernels& kernels_;
  oracle::Random random_;
  const int batch_, rows_, heads_, selections_;
  std::vector<oracle::Problem> problems_;
  std::vector<oracle::Call> calls_;
  std::vector<std::vector<std::uint8_t>> codes_;
  std::vector<int> starts_;
  std::vector<int> table_;
  std::int64_t table_stride_ = 0, page_tokens_ = 0, pages_ = 0, sequence_slots_ = 0, max_tokens_ = 1;
  codegen::Shape shape_;
  adamas_abi::Args args_{};
  std::vector<std::unique_ptr<Guarded>> buffers_;
};

}  // namespace adamas::tests
