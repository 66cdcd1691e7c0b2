// The CUDA generator: which templates make up a unit, what is refused, grids and code layout.
#include <algorithm>
#include <limits>
#include <span>

#include "codegen/cuda_decode.hpp"
#include "codegen/cuda_facts.hpp"
#include "codegen/cuda_source.hpp"
#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/generator.hpp"
#include "codegen/round.hpp"
#include "codegen/target.hpp"
#include "codegen/templates.hpp"

namespace adamas::codegen {
namespace {

constexpr int kWordBytes = 4;
constexpr int kOldestArchitecture = 80;  // bf16 conversions

[[noreturn]] void refuse(std::string key, std::string_view value, std::string rule, std::string hint) {
  throw Error(ADAMAS_UNSUPPORTED, std::move(key), std::string(value), std::move(rule), std::move(hint));
}

/// One dimension of a grid, checked against what a launch can have.
std::uint32_t grid_dimension(std::string_view field, std::int64_t blocks, std::int64_t limit) {
  if (blocks > limit) {
    throw Error(ADAMAS_INVALID_ARGUMENT, std::string(field), fmt::to_string(blocks),
                fmt::format("a CUDA launch holds at most {}", limit), "split the call");
  }
  return static_cast<std::uint32_t>(std::max<std::int64_t>(blocks, 1));
}

/// A unit's templates: pieces that depend on no Spec, placed before the generated part, and those built on
/// it.
struct UnitTemplates {
  std::span<const std::string_view> before, after;
};

constexpr std::string_view kRotatingPieces[]{"args.h", "cuda/convert.cuh", "cuda/element.cuh",
                                             "cuda/group.cuh", "cuda/hadamard.cuh"};
constexpr std::string_view kPlainPieces[]{"args.h", "cuda/convert.cuh", "cuda/element.cuh", "cuda/group.cuh"};
constexpr std::string_view kDecodePieces[]{
    "args.h",           "cuda/convert.cuh", "cuda/binary_mma.cuh", "cuda/byte_mma.cuh", "cuda/byte_codes.cuh",
    "cuda/element.cuh", "cuda/group.cuh",   "cuda/hadamard.cuh"};
constexpr std::string_view kEncode[]{"cuda/launch.cuh", "cuda/row.cuh",        "cuda/place.cuh",
                                     "cuda/codes.cuh",  "cuda/copy_async.cuh", "cuda/encode_lanes.cuh",
                                     "cuda/encode.cuh", "cuda/check.cuh"};
constexpr std::string_view kSelect[]{"cuda/launch.cuh", "cuda/row.cuh",   "cuda/place.cuh",
                                     "cuda/codes.cuh",  "cuda/query.cuh", "cuda/prepare_query.cuh",
                                     "cuda/scan.cuh",   "cuda/select.cuh"};
constexpr std::string_view kAttend[]{
    "cuda/launch.cuh",      "cuda/row.cuh",         "cuda/place.cuh",          "cuda/partial.cuh",
    "cuda/copy_async.cuh",  "cuda/tensor_core.cuh", "cuda/list_attention.cuh", "cuda/dense.cuh",
    "cuda/dense_chunk.cuh", "cuda/attend.cuh",      "cuda/merge_chunks.cuh",   "cuda/merge.cuh"};
constexpr std::string_view kAttendOnTiles[]{
    "cuda/launch.cuh",      "cuda/row.cuh",         "cuda/place.cuh",          "cuda/partial.cuh",
    "cuda/copy_async.cuh",  "cuda/tensor_core.cuh", "cuda/list_attention.cuh", "cuda/dense.cuh",
    "cuda/dense_tiles.cuh", "cuda/attend.cuh",      "cuda/merge_chunks.cuh",   "cuda/merge.cuh"};
constexpr std::string_view kDecode[]{
    "cuda/row.cuh",           "cuda/place.cuh",        "cuda/codes.cuh",          "cuda/query.cuh",
    "cuda/partial.cuh",       "cuda/copy_async.cuh",   "cuda/tensor_core.cuh",    "cuda/list_attention.cuh",
    "cuda/launch.cuh",        "cuda/cluster.cuh",      "cuda/decode_layout.cuh",  "cuda/decode_codes.cuh",
    "cuda/decode_scan.cuh",   "cuda/decode_bound.cuh", "cuda/decode_list.cuh",    "cuda/decode_select.cuh",
    "cuda/decode_attend.cuh", "cuda/merge_chunks.cuh", "cuda/decode_records.cuh", "cuda/decode.cuh"};

UnitTemplates templates_of(Unit unit, bool dense_on_tiles) {
  switch (unit) {
    case Unit::encode:
      return {kRotatingPieces, kEncode};
    case Unit::select:
      return {kRotatingPieces, kSelect};
    case Unit::attend:
      if (dense_on_tiles) return {kPlainPieces, kAttendOnTiles};
      return {kPlainPieces, kAttend};
    case Unit::decode:
    case Unit::decode_pair:
    case Unit::decode_long:
      return {kDecodePieces, kDecode};
  }
  throw Error(ADAMAS_INTERNAL, "unit", fmt::to_string(static_cast<int>(unit)),
              "is none of a kernel set's units");
}

/// Two units of the same templates have entry points of different names.
void rename_entry(std::string& text, Stage from, Stage to) {
  const std::string name = entry_name(from);
  text.replace(text.find(name + "("), name.size(), entry_name(to));
}

class CudaGenerator final : public Generator {
 public:
  std::string_view language() const override { return "cuda"; }

  void check(const Spec& spec, const Tuning& tuning, std::string_view target) const override {
    if (spec.kv_type == ElementType::f32 || spec.kv_type == ElementType::q8_0) {
      refuse("kv_type", name(spec.kv_type), "is not generated for CUDA", "f16, bf16 and f8e4m3fn are");
    }
    const int architecture = cuda_architecture(target);
    if (architecture < kOldestArchitecture) {
      refuse("target", target, "is older than the kernels can use", "the oldest is sm_80");
    }
    if (tuning.scan != "popc" && tuning.scan != "bytes")
      refuse("scan", tuning.scan, "is no scan variant of CUDA", "use scan=popc");
    if (tuning.schedule == "cluster" && cuda_architecture(target) < 90) {
      refuse("schedule", tuning.schedule, "needs thread-block clusters, which came with sm_90",
             "use schedule=stages");
    }
    const std::int64_t shared = cuda_attend_shared_bytes(spec, tuning),
                       limit = cuda_shared_limit(architecture);
    if (shared > limit) {
      throw Error(
          ADAMAS_INVALID_SPEC, "dense_chunk", fmt::to_string(tuning.dense_chunk),
          fmt::format(
              "attend needs {} bytes of shared memory for group={} head_dim={} chunk={}, and a block on "
              "{} has {}",
              shared, spec.group, spec.head_dim, tuning.chunk, target, limit),
          "make chunk, dense_chunk or threads smaller");
    }
  }

  std::vector<Unit> units(const Spec& spec, const Tuning& tuning, std::string_view target) const override {
    std::vector<Unit> units{Unit::encode, Unit::select, Unit::attend};
    for (const Unit unit : cuda_decode_units(spec, tuning, target))
      units.push_back(unit);
    return units;
  }

  Tuning default_tuning(const Spec& spec, std::string_view target) const override {
    constexpr int kMostChunks = 8, kChunkStep = 32, kSmallestChunk = 64;
    Tuning tuning;
    // Clusters, and bits on tensor cores that are not emulated.
    tuning.schedule = cuda_architecture(target) == 90 ? "cluster" : "stages";
    tuning.scan = "popc";
    tuning.scan_tile = 1024;
    // Shorter chunks spread a budget over more multiprocessors, and their sums take longer to come together.
    tuning.chunk =
        std::max(kSmallestChunk, static_cast<int>(round_up(ceil_div(spec.budget, kMostChunks), kChunkStep)));
    tuning.threads = 256;
    // Element by element a chunk's logits wait in shared memory.
    tuning.dense_chunk = cuda_dense_tiles(spec, tuning).warps > 0 ? 2048 : 512;
    // The same on every target, so that results do not depend on the card: what fits the smallest shared
    // memory.
    const std::int64_t limit = cuda_shared_limit(0);
    while (tuning.dense_chunk > 64 && cuda_attend_shared_bytes(spec, tuning) > limit)
      tuning.dense_chunk /= 2;
    return tuning;
  }

  std::string emit(const Spec& spec, const Tuning& tuning, std::string_view target,
                   Unit unit) const override {
    const UnitTemplates parts = templates_of(unit, cuda_dense_tiles(spec, tuning).warps > 0);
    std::string text = fmt::format("// adamas-jit: unit {} for {}\n// Spec: {}\n// Tuning: {}\n\n",
                                   name(unit), target, spec.text(), tuning.text());
    for (const std::string_view path : parts.before) {
      text += embedded_template(path);
      text += '\n';
    }
    const Spec own = decodes(unit) ? cuda_decode_spec(spec, unit) : spec;
    text += cuda_specialization(own, tuning, std::span(&unit, 1), spec.group / own.group);
    for (const std::string_view path : parts.after) {
      text += '\n';
      text += embedded_template(path);
    }
    if (decodes(unit)) rename_entry(text, Stage::decode, cuda_decode_stage(unit));
    return text;
  }

  Grid grid(Stage stage, const Spec& spec, const Tuning& tuning, const Shape& shape) const override {
    constexpr std::int64_t kLimitX = std::numeric_limits<std::int32_t>::max(), kLimitYz = 65535;
    const CudaFacts cuda = cuda_facts_of(spec);
    const int slots_per_block = kCudaEncodeThreads / 32 * cuda.slots_per_warp;
    const auto threads = static_cast<std::uint32_t>(tuning.threads);
    const std::int64_t per_kv_head = facts_of(spec).selections_per_kv_head;
    const std::uint32_t kv_heads = grid_dimension("kv_heads", shape.kv_heads, kLimitYz);
    const std::uint32_t selections = grid_dimension("selections", shape.kv_heads * per_kv_head, kLimitYz);
    const std::uint32_t query_heads =
        grid_dimension("query heads", static_cast<std::int64_t>(shape.kv_heads) * spec.group, kLimitYz);
    const std::uint32_t rows =
        grid_dimension("rows", static_cast<std::int64_t>(shape.batch) * spec.query_rows, kLimitYz);
    switch (stage) {
      case Stage::encode: {
        std::int64_t blocks = ceil_div(shape.slots, slots_per_block);
        // As many as run at once: they encode their next keys while those after them are on their way.
        if (cuda.lane_elements > 0 && shape.processors > 0) {
          const std::int64_t places = std::int64_t{shape.processors} * cuda.encode_blocks;
          blocks = std::min(blocks, std::max<std::int64_t>(1, places / kv_heads));
        }
        return {grid_dimension("count", blocks, kLimitX), kv_heads, 1, kCudaEncodeThreads,
                static_cast<std::uint32_t>(cuda.encode_shared_bytes)};
      }
      case Stage::export_codes:
      case Stage::import_codes:
      case Stage::check_codes:
        return {grid_dimension("count", ceil_div(shape.slots, slots_per_block), kLimitX), kv_heads, 1,
                kCudaEncodeThreads, 0};
      case Stage::prepare_query:
        return {1, kv_heads, rows, kCudaPrepareThreads, 0};
      case Stage::scan:
        return {grid_dimension("max_tokens", ceil_div(shape.max_tokens, tuning.scan_tile), kLimitX), kv_heads,
                rows, threads, 0};
      case Stage::select:
        return {1, selections, rows, threads, 0};
      case Stage::attend: {
        // Dense rows deal their chunks to the blocks of the group's selections.
        const std::int64_t most = shape.lists ? ceil_div(spec.budget, tuning.chunk) : 0;
        const std::int64_t lists = std::min<std::int64_t>(shape.chunks, most);
        const std::int64_t dense = ceil_div(shape.chunks, per_kv_head);
        return {grid_dimension("chunks", std::max(lists, dense), kLimitX), selections, rows, threads,
                static_cast<std::uint32_t>(cuda_attend_shared_bytes(spec, tuning))};
      }
      case Stage::merge:
        return {1, query_heads, rows, kCudaMergeThreads, 0};
      case Stage::decode:
      case Stage::decode_pair:
      case Stage::decode_long:
        break;  // decode_grid says
    }
    throw Error(ADAMAS_INTERNAL, "stage", fmt::to_string(static_cast<int>(stage)), "is no stage");
  }

  std::optional<Grid> decode_grid(const Spec& spec, const Tuning& tuning, std::string_view target,
                                  const Shape& shape) const override {
    return cuda_decode_grid(spec, tuning, target, shape);
  }

  bool may_launch(Unit unit, const Spec& spec, const Tuning& tuning, std::string_view target,
                  const Shape& shape) const override {
    return !decodes(unit) || cuda_decode_may_launch(unit, spec, tuning, target, shape);
  }

  std::int64_t dense_chunks(const Tuning& tuning, int kv_heads, std::int64_t tokens) const override {
    return cuda_dense_chunks(tuning, kv_heads, tokens);
  }

  std::string layout_id(const Spec& spec) const override {
    const int tokens = facts_of(spec).page_tokens;
    const std::string page = tokens == 0 ? std::string("rows") : fmt::format("p{}", tokens);
    return fmt::format("cuda/planes/b{}/d{}/{}/v1", spec.buckets, spec.head_dim, page);
  }

  int code_row_bytes(const Spec& spec) const override {
    const CudaFacts cuda = cuda_facts_of(spec);
    return cuda.facts.code_bits * cuda.words * kWordBytes;
  }

  CodeStrides code_strides(const Spec& spec, int kv_heads, std::int64_t page_tokens) const override {
    const CudaFacts cuda = cuda_facts_of(spec);
    CodeStrides strides;
    strides.plane = page_tokens * cuda.words * kWordBytes;
    strides.head = strides.plane * cuda.facts.code_bits;
    strides.page = strides.head * kv_heads;
    return strides;
  }

  std::int64_t prepared_query_bytes(const Spec& spec) const override {
    return cuda_facts_of(spec).prepared_bytes;
  }
  // A scan tile may write whole vectors past the last token.
  std::int64_t score_stride(const Spec&, const Tuning&, std::int64_t max_tokens) const override {
    return round_up(max_tokens, 64);
  }
};

}  // namespace

const Generator& cuda_generator() {
  static const CudaGenerator generator;
  return generator;
}

}  // namespace adamas::codegen
