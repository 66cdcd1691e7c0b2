// Generator: from Spec and Tuning to source text, for one target language. Pure functions: no file, no driver, no
// clock. What a generator decides (grids, layouts, sizes) the templates obey, and static_asserts in the emitted text
// hold the two together.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/facts.hpp"
#include "codegen/spec.hpp"
#include "codegen/tuning.hpp"

namespace adamas::codegen {

/// A kernel set is compiled as a few independent translation units, so that they compile in parallel.
enum class Unit { encode, select, attend, decode, decode_pair, decode_long };
inline constexpr std::array kUnits{Unit::encode, Unit::select, Unit::attend, Unit::decode, Unit::decode_pair,
                                   Unit::decode_long};
std::string_view name(Unit);

/// One entry point of a unit: `extern "C" adamas_<name>`, launched over a grid of work items.
///   encode unit: encode, export_codes, import_codes, check_codes  (per slot block and K/V head)
///   select unit: prepare_query, scan, select            (query -> scan form; codes -> order keys; keys -> positions)
///   attend unit: attend, merge                          (chunk -> partial sums; partial sums -> output, LSE)
///   decode unit: decode                                 (all of select and attend in one launch; not every kernel set
///                                                        has one)
///   decode_pair unit: decode_pair                       (the same in smaller blocks, two of which share a
///                                                        multiprocessor: for many rows)
///   decode_long unit: decode_long                       (the same with fewer lists a cluster, which then has room for
///                                                        longer rows)
enum class Stage {
  encode, export_codes, import_codes, check_codes, prepare_query, scan, select, attend, merge, decode, decode_pair,
  decode_long
};
inline constexpr std::array kStages{Stage::encode, Stage::export_codes, Stage::import_codes, Stage::check_codes,
                                    Stage::prepare_query, Stage::scan, Stage::select, Stage::attend,
                                    Stage::merge, Stage::decode, Stage::decode_pair, Stage::decode_long};
std::string_view name(Stage);
std::string entry_name(Stage);  ///< "adamas_" + name
Unit unit_of(Stage);
/// Whether all of a decode is one launch of it, in clusters of blocks: decode, decode_pair, decode_long.
constexpr bool decodes(Unit unit) { return unit >= Unit::decode; }

/// What a launch is sized by: capacities and call data known on the host, never lengths.
struct Shape {
  int batch = 1;
  int kv_heads = 1;
  std::int64_t max_tokens = 1;
  std::int64_t slots = 0;  ///< encode, export, import: slots in the call
  int chunks = 1;          ///< attend: chunks per row and query head
  bool lists = true;       ///< attend: whether it does lists, or only the chunks of rows that attend to more
  int processors = 0;      ///< encode, decode: multiprocessors of the device; only speed depends on it
};

/// A grid of work items. CUDA: blocks of `threads` with `shared_bytes` of dynamic shared memory; CPU: calls of the
/// entry point with (x, y, z), any order, any thread.
struct Grid {
  std::uint32_t x = 1, y = 1, z = 1;
  std::uint32_t threads = 1;
  std::uint32_t shared_bytes = 0;
  Stage stage = Stage::decode;    ///< decode: or decode_pair, decode_long
  std::uint32_t ring_stages = 0;  ///< decode: as in Args
  std::uint32_t smallest_part = 1;  ///< decode: as in Args
  std::uint32_t inbox_words = 0;  ///< decode: as in Args
  std::uint32_t chunks = 0;       ///< decode: as in Args
  std::uint32_t cluster = 1;  ///< CUDA: blocks along x that run together, a divisor of x
};

/// Where codes lie. `page_tokens` is the run-time page (page_size, or a contiguous row).
struct CodeStrides {
  std::int64_t page = 0, head = 0, plane = 0;  ///< bytes
};

class Generator {
 public:
  virtual ~Generator() = default;

  virtual std::string_view language() const = 0;  ///< "cuda", "cpu"

  /// @throws Error(ADAMAS_UNSUPPORTED) naming the key this language cannot generate, ADAMAS_INVALID_SPEC when a
  /// resource does not suffice (shared memory).
  virtual void check(const Spec&, const Tuning&, std::string_view target) const = 0;

  /// The units of a kernel set, in the order of kUnits.
  virtual std::vector<Unit> units(const Spec&, const Tuning&, std::string_view target) const = 0;

  virtual Tuning default_tuning(const Spec&, std::string_view target) const = 0;

  /// The complete translation unit: constants, straight-line parts, then the templates. Deterministic, no includes.
  virtual std::string emit(const Spec&, const Tuning&, std::string_view target, Unit) const = 0;

  virtual Grid grid(Stage, const Spec&, const Tuning&, const Shape&) const = 0;
  /// Grid of the decode stage, of decode_pair or decode_long; nothing where a shape is beyond what it can hold on chip,
  /// or there is no such stage.
  virtual std::optional<Grid> decode_grid(const Spec&, const Tuning&, std::string_view target, const Shape&) const = 0;

  /// Whether calls of a shape's max_tokens, of any batch, may launch a unit of the kernel set.
  virtual bool may_launch(Unit, const Spec&, const Tuning&, std::string_view /*target*/, const Shape&) const {
    return true;
  }

  /// The most chunks that a row of at most `tokens` tokens is cut into where it attends to all of them.
  virtual std::int64_t dense_chunks(const Tuning&, int kv_heads, std::int64_t tokens) const = 0;

  /// Names the code layout: a function of Spec and language alone.
  virtual std::string layout_id(const Spec&) const = 0;
  /// Bytes of one token's codes of one K/V head.
  virtual int code_row_bytes(const Spec&) const = 0;
  virtual CodeStrides code_strides(const Spec&, int kv_heads, std::int64_t page_tokens) const = 0;

  /// Workspace bytes of one prepared query (one row, one query head), a multiple of 64.
  virtual std::int64_t prepared_query_bytes(const Spec&) const = 0;

  /// Workspace for the order keys of one selection, counted in keys: a multiple of 64, at least max_tokens.
  virtual std::int64_t score_stride(const Spec&, const Tuning&, std::int64_t max_tokens) const = 0;
};

const Generator& cuda_generator();
const Generator& cpu_generator();
/// The generator for a target name: sm_* is CUDA, everything else CPU.
const Generator& generator_for(std::string_view target);

}  // namespace adamas::codegen
