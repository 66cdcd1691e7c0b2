// Operations: caller's arguments -> checked -> kernel arguments -> stages. See operations.hpp.
#include "runtime/dispatch/operations.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>

#include "codegen/error.hpp"
#include "runtime/dispatch/arguments.hpp"
#include "templates/args.h"

namespace adamas::runtime {
namespace {

using adamas_abi::Args;
using codegen::Stage;

// The kernels write what the host reads: one layout under two names.
static_assert(sizeof(adamas_abi::Counters) == sizeof(adamas_counters));
static_assert(offsetof(adamas_abi::Counters, rows) == offsetof(adamas_counters, rows));
static_assert(offsetof(adamas_abi::Counters, tokens_stale) == offsetof(adamas_counters, tokens_stale));
static_assert(static_cast<int>(adamas_abi::kLengthClamped) == ADAMAS_STATUS_LENGTH_CLAMPED);
static_assert(static_cast<int>(adamas_abi::kBadTable) == ADAMAS_STATUS_BAD_TABLE);
static_assert(static_cast<int>(adamas_abi::kBadSlot) == ADAMAS_STATUS_BAD_SLOT);
static_assert(static_cast<int>(adamas_abi::kBadPosition) == ADAMAS_STATUS_BAD_POSITION);

// Device memory of 64-bit addresses, as the host's C type has them.
static_assert(sizeof(*adamas_cache::page_addresses) == sizeof(*Args::page_addresses));

/// What the kernel alone decides.
Args kernel_args(const Kernel& kernel) {
  Args args{};
  const Geometry& geometry = kernel.geometry();
  args.page_tokens = geometry.page_tokens;
  args.pages = geometry.pages;
  args.sequence_slots = geometry.sequence_slots;
  args.max_tokens = kernel.capacity().max_tokens;
  args.code_page_stride = kernel.code_strides().page;
  args.code_head_stride = kernel.code_strides().head;
  args.code_plane_stride = kernel.code_strides().plane;
  args.kv_heads = kernel.capacity().kv_heads;
  return args;
}

void put_cache(Args& args, const Kernel& kernel, const adamas_cache& cache) {
  args.keys = cache.key;
  args.values = cache.value;
  args.key_page_stride = cache.key_page_stride;
  args.key_token_stride = cache.key_token_stride;
  args.key_head_stride = cache.key_head_stride;
  args.value_page_stride = cache.value_page_stride;
  args.value_token_stride = cache.value_token_stride;
  args.value_head_stride = cache.value_head_stride;
  args.table = cache.table;
  args.table_stride = cache.table_stride;
  args.indptr = cache.indptr;
  args.value_table = cache.value_table;
  args.page_addresses = reinterpret_cast<const unsigned long long*>(cache.page_addresses);
  args.key_scale = cache.key_scale;
  args.value_scale = cache.value_scale;
  args.scale_stride = cache.scale_stride;
  args.key_offset = cache.key_offset;
  args.value_offset = cache.value_offset;
  if (kernel.spec().cache_form == codegen::CacheForm::slots) {  // a page is one token
    args.key_page_stride = cache.key_token_stride;
    args.value_page_stride = cache.value_token_stride;
  }
}

/// Everything a call says, apart from who gets positions.
Args call_args(const Plan& plan, const WorkspaceLayout& layout, const adamas_call& call) {
  const Kernel& kernel = plan.kernel();
  Args args = kernel_args(kernel);
  put_cache(args, kernel, call.cache);
  args.codes = static_cast<unsigned char*>(const_cast<void*>(call.codes));
  args.query = call.query;
  const RowStrides query = query_strides(kernel, call);
  args.query_row_stride = query.row;
  args.query_head_stride = query.head;
  args.out = call.out;
  const RowStrides out = out_strides(kernel, call);
  args.out_row_stride = out.row;
  args.out_head_stride = out.head;
  args.lse = call.lse;
  args.lengths = call.lengths;
  args.starts = call.starts;
  args.row_budgets = call.row_budgets;
  args.query_thresholds = call.query_thresholds;
  args.sink_logits = call.sink_logits;
  args.out_counts = nullptr;

  auto* workspace = static_cast<unsigned char*>(call.workspace);
  args.prepared = workspace + layout.prepared;
  args.keys_of_scores = workspace + layout.order_keys;
  args.score_stride = layout.score_stride;
  args.partial = reinterpret_cast<float*>(workspace + layout.partial);
  args.chunks = layout.chunks;

  args.counters = static_cast<adamas_abi::Counters*>(call.counters);
  args.dense_below = plan.dense_below();
  args.batch = plan.batch();
  args.window = call.window;
  args.scale = call.scale > 0 ? call.scale : 1.0F / std::sqrt(static_cast<float>(kernel.spec().head_dim));
  args.soft_cap = call.soft_cap;
  return args;
}

/// Stages read and write positions and counts in one place: the caller's arrays where they fit, workspace
/// otherwise.
void put_selection(Args& args, const WorkspaceLayout& layout, const adamas_call& call) {
  auto* workspace = static_cast<unsigned char*>(call.workspace);
  args.write_slots = call.positions_are_slots != 0 ? 1 : 0;
  const bool direct = call.positions != nullptr && args.write_slots == 0;
  args.positions = direct ? call.positions : reinterpret_cast<int*>(workspace + layout.positions);
  args.out_positions = direct ? nullptr : call.positions;
  args.counts = call.counts != nullptr ? call.counts : reinterpret_cast<int*>(workspace + layout.counts);
}

void launch(const Kernel& kernel, std::size_t variant, std::span<const Stage> stages,
            const codegen::Shape& shape, const Args& args, Stream stream) {
  for (const Stage stage : stages)
    kernel.require(stage);
  const codegen::Generator& generator = kernel.device().generator();
  for (const Stage stage : stages) {
    const codegen::Grid grid = generator.grid(stage, kernel.spec(), kernel.variants()[variant].tuning, shape);
    kernel.module(stage, variant).launch(stage, grid, args, stream);
  }
}

/// A stage that is the same in all variants.
void launch(const Kernel& kernel, Stage stage, const codegen::Shape& shape, const Args& args, Stream stream) {
  launch(kernel, 0, {&stage, 1}, shape, args, stream);
}

void launch(const Plan& plan, std::initializer_list<Stage> stages, const codegen::Shape& shape,
            const Args& args, Stream stream) {
  launch(plan.kernel(), plan.variant(), {stages.begin(), stages.size()}, shape, args, stream);
}

/// What a launch over `count` slots is sized by; batch and chunks play no part in it.
codegen::Shape slots_shape(const Kernel& kernel, std::int64_t count) {
  return {.batch = 1,
          .kv_heads = kernel.capacity().kv_heads,
          .max_tokens = kernel.capacity().max_tokens,
          .slots = count,
          .chunks = 1,
          .processors = kernel.device().processors()};
}

void convert_codes(const Kernel& kernel, const adamas_codes_args& request, Stage stage, Stream stream) {
  check_codes(kernel, request);
  if (request.count == 0) return;
  Args args = kernel_args(kernel);
  args.codes = static_cast<unsigned char*>(request.codes);
  args.bytes = request.bytes;
  args.first_slot = request.first_slot;
  args.count = request.count;
  launch(kernel, stage, slots_shape(kernel, request.count), args, stream);
}

bool wants_lists(const adamas_call& call) { return call.positions != nullptr || call.counts != nullptr; }

/// Stages of kDecodeStages.
void decode_by_stages(const Plan& plan, const adamas_call& call, std::span<const Stage> stages,
                      Stream stream) {
  Args args = call_args(plan, plan.workspace(), call);
  put_selection(args, plan.workspace(), call);
  args.skip_short_rows = wants_lists(call) ? 0 : 1;
  launch(plan.kernel(), plan.variant(), stages, plan.shape(), args, stream);
}

/// Whether the launch that decodes makes the codes of the rows' own tokens, too: no other launch of it may need
/// them, and every row of the sequence must be sure to select them, so that none waits for their codes.
bool appends_at_once(const Plan& plan) {
  return plan.short_chunks() == 0 && plan.kernel().spec().recent >= plan.kernel().spec().query_rows;
}

/// One launch. Where short rows attend to more than a list holds, another sums their chunks first.
void decode_at_once(const Plan& plan, const adamas_call& call, Stream stream) {
  Args args = call_args(plan, plan.workspace(), call);
  if (plan.short_chunks() > 0) {
    args.chunks = plan.short_chunks();
    codegen::Shape shape = plan.shape();
    shape.chunks = args.chunks;
    shape.lists = false;
    launch(plan, {Stage::attend}, shape, args, stream);
  }
  const codegen::Grid& grid = *plan.decode_grid();
  args.short_chunks = plan.short_chunks();
  args.ring_stages = static_cast<int>(grid.ring_stages);
  args.smallest_part = static_cast<int>(grid.smallest_part);
  args.inbox_words = static_cast<int>(grid.inbox_words);
  args.chunks = static_cast<int>(grid.chunks);
  args.kv_heads = static_cast<int>(grid.y);  // parts of a group count as K/V heads of their own
  if (appends_at_once(plan)) {
    args.slots = call.append_slots;
    args.key_thresholds = call.key_thresholds;
  }
  args.positions = call.positions;
  args.counts = call.counts;
  args.write_slots = call.positions_are_slots != 0 ? 1 : 0;
  plan.module(grid.stage).launch(grid.stage, grid, args, stream);
}

/// Codes of the rows' own tokens.
adamas_encode_args append_of(const Plan& plan, const adamas_call& call) {
  return {.cache = call.cache,
          .codes = const_cast<void*>(call.codes),
          .slots = call.append_slots,
          .count = plan.rows(),
          .key_thresholds = call.key_thresholds,
          .counters = call.counters};
}

/// Who wants every token of every row: the value of Args::all_tokens.
enum class AllTokens { requested = 1, background = 2 };

/// Every token of every row: what dense does, and decode while its own kernels are being compiled.
void attend_to_all(const Plan& plan, const adamas_call& call, AllTokens reason, Stream stream) {
  Args args = call_args(plan, plan.dense_workspace(), call);
  args.all_tokens = static_cast<int>(reason);
  codegen::Shape shape = plan.shape();
  shape.chunks = plan.dense_workspace().chunks;
  launch(plan, {Stage::attend, Stage::merge}, shape, args, stream);
}

/// Of encode and check, which read keys and write codes.
template <class Request>
Args keys_args(const Kernel& kernel, const Request& request) {
  Args args = kernel_args(kernel);
  put_cache(args, kernel, request.cache);
  args.codes = static_cast<unsigned char*>(request.codes);
  args.slots = request.slots;
  args.first_slot = request.first_slot;
  args.count = request.count;
  args.key_thresholds = request.key_thresholds;
  args.counters = static_cast<adamas_abi::Counters*>(request.counters);
  return args;
}

}  // namespace

void encode(const Kernel& kernel, const adamas_encode_args& request, Stream stream) {
  check_encode(kernel, request);
  if (request.count == 0) return;
  const Args args = keys_args(kernel, request);
  launch(kernel, Stage::encode, slots_shape(kernel, request.count), args, stream);
}

void check(const Kernel& kernel, const adamas_check_args& request, bool mend, Stream stream) {
  check_check(kernel, request, mend);
  if (request.count == 0) return;
  Args args = keys_args(kernel, request);
  args.bytes = request.stale;
  args.mend = mend ? 1 : 0;
  launch(kernel, Stage::check_codes, slots_shape(kernel, request.count), args, stream);
}

void codes_export(const Kernel& kernel, const adamas_codes_args& args, Stream stream) {
  convert_codes(kernel, args, Stage::export_codes, stream);
}

void codes_import(const Kernel& kernel, const adamas_codes_args& args, Stream stream) {
  convert_codes(kernel, args, Stage::import_codes, stream);
}

void select(const Plan& plan, const adamas_call& call, Stream stream) {
  check_call(plan, plan.workspace(), call, {.operation = "select", .codes = true, .selection = true});
  Args args = call_args(plan, plan.workspace(), call);
  put_selection(args, plan.workspace(), call);
  args.out =
      nullptr;  // select has none, whatever the caller's block holds: by this its last stage knows to count
  args.out_scores = call.scores;
  args.query_codes = call.query_codes;
  launch(plan, {Stage::prepare_query, Stage::scan, Stage::select}, plan.shape(), args, stream);
}

void attend(const Plan& plan, const adamas_call& call, Stream stream) {
  check_call(plan, plan.workspace(), call,
             {.operation = "attend", .cache = true, .selection = true, .out = true});
  Args args = call_args(plan, plan.workspace(), call);
  args.positions = call.positions;
  args.counts = call.counts;
  args.dense_below = 0;  // the list is what the host wants attended, however short the row
  launch(plan, {Stage::attend, Stage::merge}, plan.shape(), args, stream);
}

void decode(const Plan& plan, const adamas_call& call, Stream stream) {
  check_call(plan, plan.workspace(), call,
             {.operation = "decode", .cache = true, .codes = true, .out = true, .append = true});
  // Where a short row sees more than its list holds, the list is searched, though not attended to: only the
  // stages do both.
  const bool searches_short_rows =
      wants_lists(call) && (call.row_budgets != nullptr || plan.short_chunks() > 0);
  const bool at_once = plan.kernel().waits_for() == nullptr && plan.decode_grid() && !searches_short_rows;
  if (call.append_slots != nullptr && !(at_once && appends_at_once(plan)))
    encode(plan.kernel(), append_of(plan, call), stream);
  if (plan.kernel().waits_for() != nullptr) {
    if (wants_lists(call)) {
      throw codegen::Error(ADAMAS_UNAVAILABLE, call.positions != nullptr ? "positions" : "counts", "",
                           "must be null while the kernel is dense (compile=background): nothing is selected",
                           "refresh the kernel first");
    }
    attend_to_all(plan, call, AllTokens::background, stream);
    return;
  }
  if (at_once) {
    decode_at_once(plan, call, stream);
    return;
  }
  decode_by_stages(plan, call, kDecodeStages, stream);
}

void run_stage(const Plan& plan, const adamas_call& call, Stage stage, Stream stream) {
  if (std::find(kDecodeStages.begin(), kDecodeStages.end(), stage) == kDecodeStages.end()) {
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "stage", std::string(codegen::name(stage)),
                         "must be prepare_query, scan, select, attend or merge",
                         "encode and codes_* have calls of their own");
  }
  check_call(plan, plan.workspace(), call,
             {.operation = "decode", .cache = true, .codes = true, .out = true});
  decode_by_stages(plan, call, {&stage, 1}, stream);
}

void dense(const Plan& plan, const adamas_call& call, Stream stream) {
  check_call(plan, plan.dense_workspace(), call, {.operation = "dense", .cache = true, .out = true});
  attend_to_all(plan, call, AllTokens::requested, stream);
}

}  // namespace adamas::runtime
