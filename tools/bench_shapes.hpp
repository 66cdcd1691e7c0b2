// What bench runs: shapes as typed ("batch=1,16 kv_heads=8 tokens=32768"), ragged batches, and presets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace adamas::tools {

/// One call's worth of sequences.
struct BenchShape {
  int kv_heads = 8;
  std::vector<std::int64_t> lengths;  ///< tokens of each sequence
  std::int64_t capacity = 0;          ///< max_tokens that the kernels are prepared for
  bool ragged = false;

  int batch() const { return static_cast<int>(lengths.size()); }
  std::int64_t total_tokens() const;
  /// "32768", or "1024..65536" for ragged ones.
  std::string tokens_text() const;
};

/// `batch` sequences of the same length, which is the capacity too.
BenchShape even_shape(int batch, int kv_heads, std::int64_t tokens);

/// Lengths at equal steps of their logarithm, `low` and `high` among them, in a fixed shuffled order: the
/// same on every machine. A batch of one has `high`.
BenchShape ragged_shape(int batch, int kv_heads, std::int64_t low, std::int64_t high);

/// Groups separated by ';', each the product of its lists; a range of tokens makes ragged batches:
/// "batch=1,16 kv_heads=8 tokens=32768; batch=32 tokens=1024..65536". What a group leaves out is batch=1,
/// kv_heads=8, tokens=32768.
/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) naming the word at fault
std::vector<BenchShape> parse_shapes(const std::string& text);

/// "64,256,1024". @throws codegen::Error(ADAMAS_INVALID_ARGUMENT)
std::vector<std::int64_t> parse_budgets(const std::string& text);

/// A named set of measurements.
struct BenchPreset {
  std::string name, spec, shapes, budgets;  // texts as the options take them
};
const std::vector<BenchPreset>& bench_presets();
/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) listing the names there are
const BenchPreset& bench_preset(const std::string& name);

/// Spec text `base` with the keys of `changes` in place of its own.
std::string merge_spec(const std::string& base, const std::string& changes);
/// Whether a Spec text gives this key.
bool names_key(const std::string& spec, const std::string& key);

}  // namespace adamas::tools
