// Plan: see plan.hpp.
#include "plan.hpp"

#include <algorithm>

namespace adamas_python {

Array checked_codes(const ArrayArgument& codes, const KernelFacts& facts, std::uint64_t code_bytes,
                    bool writable) {
  const auto bytes = static_cast<std::int64_t>(code_bytes);
  return checked_array("codes", codes, facts.device,
                       {ElementKind::u8, {{bytes, "bytes", true}}, /*dense=*/true, writable});
}

Plan::Plan(ContextHandle context, KernelHandle kernel, std::shared_ptr<const KernelFacts> facts,
           std::uint64_t code_bytes, int batch, std::int64_t dense_below, bool own_workspace)
    : context_(std::move(context)),
      kernel_(std::move(kernel)),
      facts_(std::move(facts)),
      code_bytes_(code_bytes),
      batch_(batch) {
  const adamas_plan_options options{.batch = batch, .dense_below = dense_below};
  adamas_plan* plan = nullptr;
  check(adamas_plan_create(kernel_.get(), &options, &plan));
  plan_ = owned<adamas_plan, adamas_plan_destroy>(plan);
  const adamas_plan_info made = info();
  rows_ = made.rows;
  selections_ = made.selections;
  workspace_bytes_ = std::max(made.workspace_bytes, made.dense_workspace_bytes);
  if (own_workspace) workspace_ = std::make_shared<const DeviceMemory>(context_, workspace_bytes_);
}

adamas_plan_info Plan::info() const {
  adamas_plan_info info{};
  check(adamas_plan_get_info(plan_.get(), &info));
  return info;
}

void Plan::call(Operation operation, const CallArrays& arrays, const CallOptions& options) const {
  adamas_call call;
  std::vector<Array> kept;  // arrays live as long as the call; what runs on a stream is the caller's to keep
  take_rows(call, arrays, options.append_slots.has_value(), kept);
  take_selection(call, arrays, options, kept);
  take_options(call, options, kept);
  void* const stream = stream_of(options.stream, facts_->device, arrays.query->object);
  run([&] { return operation(plan_.get(), &call, stream); });
}

void Plan::take_rows(adamas_call& call, const CallArrays& arrays, bool writes_codes,
                     std::vector<Array>& kept) const {
  const auto keep = [&](Array array) -> const Array& { return kept.emplace_back(std::move(array)); };
  const CacheView& cache = *arrays.cache;
  if (facts_->text("cache_form") != "contiguous" && !cache.has_table())
    refuse("cache", "a cache without table",
           "one made with table=, by cache_form=" + facts_->text("cache_form"));
  if (arrays.out && !cache.has_values()) refuse("cache", "a cache without values", "one made with values=");
  if (!facts_->packed() && cache.batch() < batch_)
    refuse("cache", "tables or rows of " + std::to_string(cache.batch()) + " sequences",
           "at least the plan's batch of " + std::to_string(batch_));
  call.cache = cache.get();

  const Extent rows{rows_, "rows (batch x query_rows)"}, heads{facts_->query_heads(), "query heads"};
  const Array& query =
      keep(checked_array("query", *arrays.query, facts_->device,
                         {facts_->kind("q_type"), {rows, heads, {facts_->head_dim(), "elements"}}}));
  call.query = query.data;
  call.query_row_stride = query.strides[0];
  call.query_head_stride = query.strides[1];
  if (arrays.codes) call.codes = keep(checked_codes(*arrays.codes, *facts_, code_bytes_, writes_codes)).data;
  call.lengths = keep(checked_array("lengths", *arrays.lengths, facts_->device,
                                    {ElementKind::i32, {{batch_, "sequences"}}, /*dense=*/true}))
                     .as<const int32_t>();
  if (!arrays.out) return;
  const Array& out = keep(checked_array(
      "out", *arrays.out, facts_->device,
      {facts_->kind("out_type"), {rows, heads, {facts_->value_dim(), "elements"}}, false, true}));
  call.out = out.data;
  call.out_row_stride = out.strides[0];
  call.out_head_stride = out.strides[1];
}

void Plan::take_selection(adamas_call& call, const CallArrays& arrays, const CallOptions& options,
                          std::vector<Array>& kept) const {
  const auto take = [&](const char* name, const std::optional<ArrayArgument>& given, Wanted wanted) {
    wanted.dense = wanted.writable = true;
    return kept.emplace_back(checked_array(name, given, facts_->device, wanted)).data;
  };
  const Extent rows{rows_, "rows"}, selections{selections_, "selections"};
  call.positions = static_cast<int32_t*>(
      take("positions", arrays.positions,
           {ElementKind::i32, {rows, selections, {facts_->number("budget"), "budget"}}}));
  call.counts = static_cast<int32_t*>(take("counts", arrays.counts, {ElementKind::i32, {rows, selections}}));
  call.scores = static_cast<int32_t*>(
      take("scores", options.scores,
           {ElementKind::i32, {rows, selections, {facts_->capacity.max_tokens, "tokens"}}}));
  call.query_codes = static_cast<int8_t*>(take(
      "query_codes", options.query_codes,
      {ElementKind::i8, {rows, {facts_->query_heads(), "query heads"}, {facts_->head_dim(), "elements"}}}));
  call.positions_are_slots = options.slots ? 1 : 0;
  call.lse = static_cast<float*>(
      take("lse", options.lse, {ElementKind::f32, {rows, {facts_->query_heads(), "query heads"}}}));
}

void Plan::take_options(adamas_call& call, const CallOptions& options, std::vector<Array>& kept) const {
  const auto take = [&](const char* name, const std::optional<ArrayArgument>& given, Wanted wanted) {
    wanted.dense = true;
    return kept.emplace_back(checked_array(name, given, facts_->device, wanted)).data;
  };
  const KernelFacts& facts = *facts_;
  call.starts = static_cast<const int32_t*>(
      take("starts", options.starts, {ElementKind::i32, {{batch_, "sequences"}}}));
  call.row_budgets = static_cast<const int32_t*>(
      take("row_budgets", options.row_budgets, {ElementKind::i32, {{rows_, "rows"}}}));
  call.query_thresholds =
      static_cast<const float*>(take("query_thresholds", options.query_thresholds, facts.thresholds()));
  call.append_slots = static_cast<const int32_t*>(
      take("append_slots", options.append_slots, {ElementKind::i32, {{rows_, "rows"}}}));
  call.key_thresholds =
      static_cast<const float*>(take("key_thresholds", options.key_thresholds, facts.thresholds()));
  call.sink_logits = static_cast<const float*>(
      take("sink_logits", options.sink_logits, {ElementKind::f32, {{facts.query_heads(), "query heads"}}}));
  call.scale = static_cast<float>(options.scale.value_or(0));
  call.soft_cap = static_cast<float>(options.soft_cap);
  call.window = options.window;
  call.counters = counters_of(options.counters);

  if (options.workspace) {
    const Array& workspace =
        kept.emplace_back(checked_array("workspace", *options.workspace, facts.device,
                                        {ElementKind::u8,
                                         {{static_cast<std::int64_t>(workspace_bytes_), "bytes", true}},
                                         true,
                                         /*writable=*/true}));
    call.workspace = workspace.data;
    call.workspace_bytes = static_cast<std::uint64_t>(workspace.shape[0]);
  } else if (workspace_) {
    call.workspace = workspace_->data();
    call.workspace_bytes = workspace_->bytes();
  } else {
    refuse("workspace", "None", "an array: the plan was made with own_workspace=False");
  }
}

}  // namespace adamas_python
