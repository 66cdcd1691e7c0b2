// Plan: sizes of a call, from capacities only.
#include "runtime/dispatch/plan.hpp"

#include <algorithm>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/round.hpp"

namespace adamas::runtime {
namespace {

constexpr std::uint64_t kPartAlignment = 256;

}  // namespace

Plan::Plan(std::shared_ptr<const Kernel> kernel, int batch, std::int64_t dense_below, std::int64_t tokens)
    : kernel_(std::move(kernel)), variant_(0), batch_(batch), dense_below_(dense_below) {
  const Capacity& capacity = kernel_->capacity();
  if (batch < 1 || batch > capacity.max_batch) {
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "plan.batch", fmt::to_string(batch),
                         fmt::format("must be 1..{}, the kernel's max_batch", capacity.max_batch),
                         "prepare with a larger capacity");
  }
  if (tokens < 0 || tokens > capacity.max_tokens) {
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "plan.expected_tokens", fmt::to_string(tokens),
                         fmt::format("must be 0..{}, the kernel's max_tokens", capacity.max_tokens),
                         "0 stands for max_tokens");
  }
  variant_ = kernel_->variant_for(batch, tokens > 0 ? tokens : capacity.max_tokens);
  const codegen::Spec& spec = kernel_->spec();
  const codegen::Tuning& tuning = this->tuning();
  if (dense_below_ < 0) dense_below_ = spec.budget;
  const auto selected = codegen::ceil_div(spec.budget, tuning.chunk);
  const std::int64_t longest = std::min(dense_below_, capacity.max_tokens);  // of rows that attend to all
  const codegen::Generator& generator = kernel_->device().generator();
  const auto short_row = generator.dense_chunks(tuning, capacity.kv_heads, longest);
  if (longest > spec.budget) short_chunks_ = static_cast<int>(short_row);
  workspace_ = layout(static_cast<int>(std::max(selected, short_row)), true);
  const auto chunks = generator.dense_chunks(tuning, capacity.kv_heads, capacity.max_tokens);
  dense_workspace_ = layout(static_cast<int>(chunks), false);
  // Decode attends densely while the kernel waits for its sparse units.
  if (kernel_->waits_for() != nullptr) workspace_.bytes = std::max(workspace_.bytes, dense_workspace_.bytes);
  // Grids have limits of their own; the plan finds out, not the first launch.
  for (const auto stage : {codegen::Stage::prepare_query, codegen::Stage::scan, codegen::Stage::select,
                           codegen::Stage::attend, codegen::Stage::merge}) {
    generator.grid(stage, spec, tuning, shape());
  }
  decode_grid_ = generator.decode_grid(spec, tuning, kernel_->report().target, shape());
}

WorkspaceLayout Plan::layout(int chunks, bool selects) const {
  const codegen::Spec& spec = kernel_->spec();
  const std::uint64_t row_heads = static_cast<std::uint64_t>(rows()) * kernel_->query_heads();
  const std::uint64_t row_selections = static_cast<std::uint64_t>(rows()) * kernel_->selections();
  WorkspaceLayout layout;
  layout.chunks = chunks;
  const auto part = [&layout](std::uint64_t bytes) {
    const std::uint64_t offset = layout.bytes;
    layout.bytes += (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
    return offset;
  };
  if (selects) {
    const codegen::Generator& generator = kernel_->device().generator();
    layout.score_stride = generator.score_stride(spec, tuning(), kernel_->capacity().max_tokens);
    layout.prepared = part(row_heads * generator.prepared_query_bytes(spec));
    layout.order_keys = part(row_selections * layout.score_stride * kernel_->facts().key_bytes);
    layout.positions = part(row_selections * spec.budget * sizeof(std::int32_t));
    layout.counts = part(row_selections * sizeof(std::int32_t));
  }
  layout.partial = part(row_heads * chunks * (spec.value_dim + 2) * sizeof(float));
  return layout;
}

codegen::Shape Plan::shape() const {
  return {.batch = batch_,
          .kv_heads = kernel_->capacity().kv_heads,
          .max_tokens = kernel_->capacity().max_tokens,
          .slots = 0,
          .chunks = workspace_.chunks,
          .processors = kernel_->device().processors()};
}

}  // namespace adamas::runtime
