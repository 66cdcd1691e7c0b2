// Constants of a CPU specialization, as source text.
#include "codegen/cpu_layout.hpp"
#include "codegen/cpu_source.hpp"
#include "codegen/facts.hpp"
#include "codegen/format.hpp"
#include "templates/args.h"

namespace adamas::codegen {
namespace {

std::string_view format_name(ElementType type) {
  switch (type) {
    case ElementType::bf16:
      return "BFloat16";
    case ElementType::f32:
      return "Float32";
    case ElementType::f8e4m3fn:
      return "Float8E4M3";
    case ElementType::q8_0:
      return "BlockInt8";
    default:
      return "Float16";
  }
}

std::string hadamard_text(const HadamardFactors& factors) {
  std::string text = fmt::format(
      "// y = x H / sqrt(kHadamard), kHadamard = kHadamardOrder * 2^kHadamardLog2\n"
      "inline constexpr int kHadamardOrder = {};\n"
      "inline constexpr int kHadamardLog2 = {};\n"
      "inline constexpr float kHadamardNorm = {:a}f;\n",
      factors.order, factors.log2, factors.norm);
  text += "// Rows of the matrix across: bit j of row r set = entry (r, j) is -1.\n";
  text += fmt::format("inline constexpr unsigned kHadamardRows[{}] = {{", factors.order);
  int column = 0;
  for (const std::uint32_t row : hadamard_rows(factors.order)) {
    text += fmt::format("{}{:#x}", column == 0 ? "" : column % 10 == 0 ? ",\n    " : ", ", row);
    ++column;
  }
  return text + "};\n";
}

}  // namespace

std::string cpu_constants(const Spec& spec, const Tuning& tuning) {
  const Facts facts = facts_of(spec);
  const CpuCodeLayout codes = cpu_code_layout(spec);

  std::string text = "namespace adamas_cpu {\n\n";
  const auto line = [&text](std::string_view type, std::string_view name, const auto& value) {
    text += fmt::format("inline constexpr {} {} = {};\n", type, name, value);
  };
  text += fmt::format(
      "// Formats of K and V, of the query and of the output\n"
      "struct Float16;\nstruct BFloat16;\nstruct Float32;\nstruct Float8E4M3;\nstruct BlockInt8;\n"
      "using Kv = {};\nusing Query = {};\nusing Out = {};\n\n",
      format_name(spec.kv_type), format_name(spec.q_type), format_name(spec.out_type));

  text += "// Whether K and V have scales of the tensor or of their heads\n";
  line("bool", "kScaled", spec.kv_type == ElementType::f8e4m3fn);
  text += "\n// Shape\n";
  line("int", "kHeadDim", spec.head_dim);
  line("int", "kValueDim", spec.value_dim);
  line("int", "kGroup", spec.group);
  line("int", "kQueryRows", spec.query_rows);
  line("int", "kBudget", spec.budget);
  line("int", "kSink", spec.sink);
  line("int", "kRecent", spec.recent);
  line("bool", "kKvHeadScope", spec.scope == Scope::kv_head);
  line("int", "kSelectionsPerKvHead", facts.selections_per_kv_head);
  line("bool", "kLse", spec.lse);
  line("bool", "kSoftCap", spec.soft_cap);
  line("bool", "kWindow", spec.window);
  line("bool", "kSinkLogits", spec.sink_logits);

  text += "\n// Transform\n";
  line("int", "kHadamard", spec.hadamard);
  text += hadamard_text(facts.hadamard);

  text += "\n// Codes and scores\n";
  line("int", "kBuckets", spec.buckets);
  line("bool", "kDot", spec.estimator == Estimator::dot);
  line("int", "kQueryMax", facts.query_max);
  line("int", "kScoreLimit", facts.score_limit);
  line("int", "kKeyLimit", facts.key_limit);
  text += fmt::format("using OrderKey = unsigned {};\n", facts.key_bytes == 2 ? "short" : "int");
  text += "static_assert(kKeyLimit == (kDot ? 2 : 1) * kScoreLimit);\n";
  text += "static_assert(kScoreLimit == kHeadDim * (kBuckets - 1) * (kDot ? kQueryMax : 1));\n";

  text += "\n// Layout of codes and of prepared queries\n";
  text += fmt::format("inline constexpr int kPageTokens = {};{}\n", facts.page_tokens,
                      facts.page_tokens > 0 ? "" : "  // known at run time");
  line("bool", "kCsr", spec.cache_form == CacheForm::csr);
  line("bool", "kPointers", spec.cache_form == CacheForm::pointers);
  line("bool", "kSplitTables", spec.tables == Tables::split);
  line("int", "kTileTokens", codes.tile_tokens);
  line("int", "kRowBytes", codes.row_bytes);
  line("int", "kPreparedBytes", cpu_prepared_bytes(spec));
  text += "static_assert(kPageTokens % kTileTokens == 0);\n";

  text += "\n// Work items\n";
  line("int", "kSlotBlock", kCpuSlotBlock);
  line("int", "kScanTile", tuning.scan_tile);
  line("int", "kChunk", tuning.chunk);
  line("int", "kDenseChunk", tuning.dense_chunk);
  text +=
      fmt::format("static_assert(sizeof(adamas_abi::Args) == {}, \"host and kernel disagree on Args\");\n",
                  sizeof(adamas_abi::Args));
  return text + "\n}  // namespace adamas_cpu\n";
}

}  // namespace adamas::codegen
