// Emits the constants and formulas of a CUDA unit. See cuda_source.hpp.
#include "codegen/cuda_source.hpp"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "codegen/cuda_decode.hpp"
#include "codegen/cuda_facts.hpp"
#include "codegen/format.hpp"
#include "templates/args.h"

namespace adamas::codegen {
namespace {

std::string constant(std::string_view type, std::string_view name, std::string_view value) {
  return fmt::format("inline constexpr {} {} = {};\n", type, name, value);
}
std::string integer(std::string_view name, std::int64_t value) {
  return constant("int", name, fmt::to_string(value));
}
std::string boolean(std::string_view name, bool value) {
  return constant("bool", name, value ? "true" : "false");
}
std::string element(std::string_view key, ElementType type) {
  return constant("Element", key, fmt::format("Element::{}", name(type)));
}

std::string constants(const Spec& spec, const Tuning& tuning, int head_parts) {
  const CudaFacts cuda = cuda_facts_of(spec);
  const Facts& facts = cuda.facts;
  std::string text = "// What the caller asked for.\n";
  text += integer("kHeadDim", spec.head_dim);
  text += integer("kValueDim", spec.value_dim);
  text += integer("kBuckets", spec.buckets);
  text += boolean("kDot", spec.estimator == Estimator::dot);
  text += integer("kBudget", spec.budget);
  text += integer("kSink", spec.sink);
  text += integer("kRecent", spec.recent);
  text += integer("kGroup", spec.group);
  text += integer("kHeadParts", head_parts);
  text += integer("kQueryRows", spec.query_rows);
  text += element("kKvType", spec.kv_type);
  text += boolean("kScaled", spec.kv_type == ElementType::f8e4m3fn);
  text += element("kQueryType", spec.q_type);
  text += element("kOutType", spec.out_type);
  text += boolean("kPaged", facts.page_tokens > 0);
  text += integer("kPageSize", std::max(1, facts.page_tokens));
  text += boolean("kCsr", spec.cache_form == CacheForm::csr);
  text += boolean("kPointers", spec.cache_form == CacheForm::pointers);
  text += boolean("kSplitTables", spec.tables == Tables::split);
  text += boolean("kLse", spec.lse);
  text += boolean("kSoftCap", spec.soft_cap);
  text += boolean("kWindow", spec.window);
  text += boolean("kSinkLogits", spec.sink_logits);
  text += "\n// What follows from it.\n";
  text += integer("kWords", cuda.words);
  text += integer("kWordsAtOnce", cuda.words_at_once);
  text += integer("kPlanes", facts.code_bits);
  text += integer("kQueryPlanes", cuda.query_planes);
  text += integer("kQueryMax", facts.query_max);
  text += integer("kScoreLimit", facts.score_limit);
  text += integer("kKeyForced", facts.key_forced);
  text += integer("kSelectionsPerKvHead", facts.selections_per_kv_head);
  text += integer("kDigits", cuda.digits);
  text += integer("kDigitBits", cuda.digit_bits);
  text += integer("kRotateScratch", cuda.rotate_scratch);
  text += integer("kPreparedBytes", cuda.prepared_bytes);
  text += fmt::format("using OrderKey = unsigned {};\n", facts.key_bytes == 2 ? "short" : "int");
  text += "\n// How the work is cut.\n";
  text += integer("kScanTile", tuning.scan_tile);
  text += integer("kChunk", tuning.chunk);
  text += integer("kDenseChunk", tuning.dense_chunk);
  text += integer("kLeastDenseChunk", cuda_least_dense_chunk(tuning));
  text += integer("kDenseChunkStep", cuda_dense_chunk_step(tuning));
  text += integer("kDenseBlocks", kCudaDenseBlocks);
  text += integer("kThreads", tuning.threads);
  text += integer("kEncodeThreads", kCudaEncodeThreads);
  text += integer("kSlotsPerWarp", cuda.slots_per_warp);
  text += boolean("kKeysInLanes", cuda.lane_elements > 0);
  text += integer("kLaneElements", cuda.lane_elements > 0 ? cuda.lane_elements : 32);
  text += integer("kEncodeBlocks", cuda.encode_blocks);
  text += integer("kEncodeSharedBytes", cuda.encode_shared_bytes);
  text += integer("kPrepareThreads", kCudaPrepareThreads);
  text += integer("kMergeThreads", kCudaMergeThreads);
  text += integer("kMostHeadsAtOnce", kCudaMostHeadsAtOnce);
  if (const CudaDenseTiles tiles = cuda_dense_tiles(spec, tuning); tiles.warps > 0) {
    text += integer("kDenseWarps", tiles.warps);
    text += integer("kDenseSlots", tiles.slots);
    text += integer("kDenseHeadTiles", tiles.head_tiles);
  }
  text += integer("kAttendSharedBytes", cuda_attend_shared_bytes(spec, tuning));
  text += fmt::format(R"(
/// A query head as the scan meets it.
struct alignas(16) PreparedQuery {{
  unsigned planes[kQueryPlanes][kWords];  ///< dot: two's complement bits; manhattan: plane t = [code > t]
  int bias;                               ///< order key where no plane has a bit in common with the key's
}};

static_assert(sizeof(adamas_abi::Args) == {}, "the host and the kernels disagree about the arguments");
static_assert(sizeof(PreparedQuery) <= kPreparedBytes, "a prepared query outgrows its workspace");
static_assert(kKeyForced >> (kDigits * kDigitBits) == 0, "order keys have more digits than are searched");
static_assert(kKeyForced <= static_cast<OrderKey>(-1), "order keys do not fit their type");
)",
                      sizeof(adamas_abi::Args));
  return text;
}

/// Hadamard transform: one call a stage.
std::string rotate(const Spec& spec) {
  const HadamardFactors factors = facts_of(spec).hadamard;
  std::string text;
  if (factors.order > 1) {
    text += fmt::format(
        "\n/// Signs of the Hadamard matrix of order {}: bit b of row r set = entry (r, b) is -1.\n",
        factors.order);
    text += fmt::format("__device__ __constant__ const unsigned kHadamardSigns[{}] = {{\n", factors.order);
    std::string line = "   ";
    for (const std::uint32_t row : hadamard_rows(factors.order)) {
      line += fmt::format(" {:#x},", row);
      if (line.size() > 90) {
        text += line + "\n";
        line = "   ";
      }
    }
    if (line != "   ") text += line + "\n";
    text += "};\n";
  }
  text += fmt::format("\ninline constexpr float kHadamardNorm = {:a}f;\n", factors.norm);
  text += fmt::format(
      "\n/// Orthonormal Hadamard transform of size {} = {} * 2^{} of each of the {} blocks of a vector.\n",
      spec.hadamard, factors.order, factors.log2, spec.head_dim / spec.hadamard);
  text += fmt::format("__device__ __forceinline__ void rotate(float (&x)[kWords], float*{}) {{\n",
                      factors.order > 1 ? " scratch" : "");
  for (int k = 0; k < factors.log2; ++k) {
    text += fmt::format("  butterfly<{}>(x);\n", 1 << k);
  }
  if (factors.order > 1) {
    text += fmt::format("  mix<{}, {}, kHeadDim>(x, kHadamardSigns, scratch);\n", factors.order,
                        1 << factors.log2);
  }
  text += "  scale(x, kHadamardNorm);\n}\n";
  text +=
      "\n/// The same of vectors that lie in lanes, where kKeysInLanes, but for the product with "
      "kHadamardNorm: "
      "radix-2\n/// stages alone.\n"
      "__device__ __forceinline__ void rotate_in_lanes(float (&x)[kLaneElements]) {\n";
  for (int k = 0; k < factors.log2; ++k) {
    text += fmt::format("  lane_butterfly<{}>(x);\n", 1 << k);
  }
  text += "}\n";
  return text;
}

std::string bucket_of(const Spec& spec) {
  std::string text =
      "\n/// Code of an element: the number of thresholds strictly below it; 0 for NaN.\n"
      "__device__ __forceinline__ unsigned bucket_of(float y, const float (&t)[kBuckets - 1]) {\n"
      "  unsigned code = y > t[0];\n";
  for (int j = 1; j < spec.buckets - 1; ++j) {
    text += fmt::format("  code += y > t[{}];\n", j);
  }
  return text + "  return code;\n}\n";
}

/// Reads the words that score_words combines: `c0` ... of the key, `q0` ... of the query.
std::string word_names(int planes, char name, std::string_view array, std::string_view index) {
  std::string text;
  for (int plane = 0; plane < planes; ++plane) {
    text += fmt::format("    const unsigned {}{} = {}[{}][{}];\n", name, plane, array, plane, index);
  }
  return text;
}

/// dot: sum_i q_i (2 c_i - (B-1)) = 2 sum_k 2^k sum_p w_p popc(Q_p & C_k) - (B-1) sum_i q_i, where w_p = 2^p,
/// and -2^p for the sign plane. Counts of equal weight are added first.
std::string dot_formula(int key_planes, int query_planes) {
  std::map<int, std::string> terms;  // by exponent of the weight
  for (int p = 0; p < query_planes; ++p) {
    for (int k = 0; k < key_planes; ++k) {
      terms[p + k] += fmt::format(" {} __popc(q{} & c{})", p == query_planes - 1 ? "-" : "+", p, k);
    }
  }
  std::string declarations = "  int ", loop, result;
  for (const auto& [exponent, sum] : terms) {
    declarations += fmt::format("{}a{} = 0", exponent == 0 ? "" : ", ", exponent);
    loop += fmt::format("    a{} = a{}{};\n", exponent, exponent, sum);
    result += exponent == 0 ? std::string("a0") : fmt::format(" + {} * a{}", 1 << exponent, exponent);
  }
  return declarations + ";\n#pragma unroll\n  for (int w = 0; w < kWordsAtOnce; ++w) {\n" +
         word_names(key_planes, 'c', "codes", "w") +
         word_names(query_planes, 'q', "query.planes", "from + w") + loop + "  }\n  return 2 * (" + result +
         ");\n";
}

/// Plane [code >= level] of codes given by binary planes c0 .. c<planes-1>.
std::string thermometer(int planes, int level) {
  const int half = 1 << (planes - 1);
  const std::string top = fmt::format("c{}", planes - 1);
  if (level == half) return top;
  if (level < half) return fmt::format("({} | {})", top, thermometer(planes - 1, level));
  return fmt::format("({} & {})", top, thermometer(planes - 1, level - half));
}

/// manhattan: |a - b| = sum over levels of [a >= level] xor [b >= level].
std::string manhattan_formula(int key_planes, int levels) {
  std::string text = "  int distance = 0;\n#pragma unroll\n  for (int w = 0; w < kWordsAtOnce; ++w) {\n" +
                     word_names(key_planes, 'c', "codes", "w") +
                     word_names(levels, 'q', "query.planes", "from + w");
  for (int level = 1; level <= levels; ++level) {
    text += fmt::format("    distance += __popc({} ^ q{});\n", thermometer(key_planes, level), level - 1);
  }
  return text + "  }\n  return -distance;\n";
}

std::string score_words(const Spec& spec) {
  const CudaFacts cuda = cuda_facts_of(spec);
  const bool dot = spec.estimator == Estimator::dot;
  return fmt::format(
      R"(
/// What kWordsAtOnce words of a token's codes, from word `from` of the row on, add to its order key. The sum
/// over a row, and the query's bias: {}.
__device__ __forceinline__ int score_words(const unsigned (&codes)[kPlanes][kWordsAtOnce],
                                           const PreparedQuery& query, int from) {{
{}}}
)",
      dot ? "kScoreLimit + sum of q_i (2 c_i - (kBuckets - 1))" : "kScoreLimit - sum of |q_i - c_i|",
      dot ? dot_formula(cuda.facts.code_bits, cuda.query_planes)
          : manhattan_formula(cuda.facts.code_bits, cuda.query_planes));
}

std::string decode_constants(const Spec& spec, const Tuning& tuning, Unit unit) {
  const CudaDecode decode = cuda_decode_of(spec, tuning, unit);
  std::string text = "\n// The decode kernel.\n";
  text += integer("kDecodeThreads", decode.threads);
  text += boolean("kByteColumns", decode.bytes);
  text += integer("kTerms", decode.terms);
  text += integer("kColumns", decode.columns);
  text += integer("kKeySteps", decode.key_steps);
  text += integer("kColumnRegisters", decode.column_registers);
  text += integer("kColumnWords", decode.column_words);
  text += integer("kMaximaWords", decode.maxima_words);
  text += integer("kPiece", decode.piece);
  text += integer("kPieceBytes", decode.piece_bytes);
  text += integer("kDecodeBlocksPerProcessor", decode.blocks_per_processor);
  text += integer("kDecodeSharedBytes", decode.shared_bytes);
  return text + fmt::format("using Score = unsigned {};\n", decode.score_bytes == 2 ? "short" : "int");
}

/// One multiplication of 16 tokens with a pair of columns of four query heads.
std::string multiplication(std::string_view sums, std::string_view row, std::string_view row_below,
                           int term) {
  return fmt::format("    count_common_bits({}, {}, {}, columns[{}][step]);\n", sums, row, row_below, term);
}

/// dot: as dot_formula, where columns 2 t and 2 t + 1 are the planes of weight 2^(2t) and 2^(2t + 1), and an
/// odd number of planes is filled up with an empty one.
std::string dot_rows(int key_planes, int query_bits, int terms) {
  std::string declarations, loop, sum;
  for (int k = 0; k < key_planes; ++k) {
    for (int t = 0; t < terms; ++t) {
      const std::string name = fmt::format("c{}_{}", k, t);
      declarations += fmt::format("  int {}[4] = {{0, 0, 0, 0}};\n", name);
      loop +=
          multiplication(name, fmt::format("codes[{}][step]", k), fmt::format("codes_below[{}][step]", k), t);
      const auto weight = [&](int plane) { return (plane == query_bits - 1 ? -1 : 1) * (1 << (plane + k)); };
      sum += fmt::format("{}{} * {}[2 * half]", sum.empty() ? "" : " + ", weight(2 * t), name);
      if (2 * t + 1 < query_bits) sum += fmt::format(" + {} * {}[2 * half + 1]", weight(2 * t + 1), name);
    }
  }
  return declarations + "#pragma unroll\n  for (int step = 0; step < kKeySteps; ++step) {\n" + loop +
         "  }\n#pragma unroll\n  for (int half = 0; half < 2; ++half) {\n    score[half] = bias + 2 * (" +
         sum + ");\n  }\n";
}

/// Words [code >= level] of a key and the one below it: row[level - 1], row_below[level - 1].
std::string level_words(int key_planes, int levels) {
  std::string text;
  for (const auto& [array, name] : {std::pair{"codes", "row"}, std::pair{"codes_below", "row_below"}}) {
    text += fmt::format("    unsigned {}[{}];\n    {{\n", name, levels);
    for (int plane = 0; plane < key_planes; ++plane) {
      text += fmt::format("      const unsigned c{} = {}[{}][step];\n", plane, array, plane);
    }
    for (int level = 1; level <= levels; ++level) {
      text += fmt::format("      {}[{}] = {};\n", name, level - 1, thermometer(key_planes, level));
    }
    text += "    }\n";
  }
  return text;
}

/// manhattan: a key's plane [code >= j] has in common with the query's what the distance loses, and with the
/// opposite of the query's what it gains.
std::string manhattan_rows(int key_planes, int terms) {
  std::string loop = level_words(key_planes, terms);
  for (int term = 0; term < terms; ++term) {
    loop += multiplication("sums", fmt::format("row[{}]", term), fmt::format("row_below[{}]", term), term);
  }
  return "  int sums[4] = {0, 0, 0, 0};\n#pragma unroll\n  for (int step = 0; step < kKeySteps; ++step) {\n" +
         loop +
         "  }\n#pragma unroll\n  for (int half = 0; half < 2; ++half) {\n"
         "    score[half] = bias + sums[2 * half] - sums[2 * half + 1];\n  }\n";
}

/// Products of codes and integers, or of a key's [code >= level] and the query's steps.
std::string byte_rows(int key_planes, bool dot, int terms) {
  const auto list = [&](std::string_view array) {
    std::string planes;
    for (int plane = 0; plane < key_planes; ++plane)
      planes += fmt::format("{}{}[{}][step]", plane == 0 ? "" : ", ", array, plane);
    return planes;
  };
  std::string text =
      "  int sums[4] = {0, 0, 0, 0};\n#pragma unroll\n  for (int step = 0; step < kKeySteps; ++step) {\n";
  if (dot) {
    text += fmt::format("    add_products<{}>(sums, {{{}}}, {{{}}}, columns[0] + step * kBytesOfWord);\n",
                        key_planes, list("codes"), list("codes_below"));
  } else {
    text += level_words(key_planes, terms);
    for (int term = 0; term < terms; ++term) {
      text += fmt::format(
          "    add_products<1>(sums, {{row[{0}]}}, {{row_below[{0}]}}, columns[{0}] + step * "
          "kBytesOfWord);\n",
          term);
    }
  }
  return text + fmt::format(
                    "  }}\n#pragma unroll\n  for (int half = 0; half < 2; ++half) {{\n"
                    "    score[half] = bias + {}sums[2 * half];\n  }}\n",
                    dot ? "2 * " : "");
}

std::string score_rows(const Spec& spec, const Tuning& tuning) {
  const CudaDecode decode = cuda_decode_of(spec, tuning, Unit::decode);
  const int planes = facts_of(spec).code_bits, terms = decode.terms;
  const bool dot = spec.estimator == Estimator::dot;
  return fmt::format(R"(
/// Scores of this lane's tokens, rows lane / 4 and lane / 4 + 8 of 16, for query head lane % 4 of a round:
/// order key + 1.
/// @param codes, codes_below  word lane % 4 of the planes of those rows
/// @param columns             of column lane / 4 of every term
__device__ __forceinline__ void score_rows(const unsigned (&codes)[kPlanes][kKeySteps],
                                           const unsigned (&codes_below)[kPlanes][kKeySteps],
                                           const unsigned (&columns)[kTerms][kKeySteps * kColumnRegisters],
                                           int bias, int (&score)[2]) {{
{}}}
)",
                     decode.bytes ? byte_rows(planes, dot, terms)
                     : dot        ? dot_rows(planes, spec.query_bits, terms)
                                  : manhattan_rows(planes, terms));
}

}  // namespace

std::string cuda_specialization(const Spec& spec, const Tuning& tuning, std::span<const Unit> units,
                                int head_parts) {
  const auto has = [&](Unit unit) { return std::ranges::find(units, unit) != units.end(); };
  std::string text = "namespace adamas_cuda {\n\n" + constants(spec, tuning, head_parts);
  const bool decode = std::ranges::any_of(units, decodes);
  if (has(Unit::encode) || has(Unit::select) || decode) text += rotate(spec) + bucket_of(spec);
  if (has(Unit::select)) text += score_words(spec);
  if (decode) {
    const Unit unit = *std::ranges::find_if(units, decodes);
    text += decode_constants(spec, tuning, unit) + score_rows(spec, tuning);
  }
  return text + "\n}  // namespace adamas_cuda\n";
}

}  // namespace adamas::codegen
