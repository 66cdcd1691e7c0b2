// A dumped layer on a device: see layer_run.hpp.
#include "tools/layer_run.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "codegen/error.hpp"
#include "codegen/facts.hpp"

namespace adamas::tools {
namespace {

bool paged(const codegen::Spec& spec) { return spec.cache_form == codegen::CacheForm::block_table; }

/// @throws codegen::Error for caches that a dump has no data for
Capacity capacity_for(const codegen::Spec& spec, const DumpLayer& layer) {
  if (spec.cache_form != codegen::CacheForm::contiguous && !paged(spec)) {
    throw codegen::Error(ADAMAS_UNSUPPORTED, "cache_form", std::string(codegen::name(spec.cache_form)),
                         "is not what a dumped layer is run in", "use contiguous or block_table");
  }
  // max_slots makes a contiguous cache one packed array, which all queries share from slot 0.
  return {.max_batch = layer.queries,
          .kv_heads = layer.kv_heads,
          .max_tokens = layer.tokens,
          .max_slots = layer.tokens};
}

std::uint64_t largest_workspace(const Plan& batch, const Plan& row) {
  const auto a = batch.info(), b = row.info();
  return std::max({a.workspace_bytes, a.dense_workspace_bytes, b.workspace_bytes, b.dense_workspace_bytes});
}

std::int64_t pages_of(const codegen::Spec& spec, const DumpLayer& layer) {
  return paged(spec) ? (layer.tokens + spec.page_size - 1) / spec.page_size : 1;
}

/// K or V, padded with zeros to whole pages.
Buffer<std::byte> upload_rows(const Context& context, const codegen::Spec& spec, const DumpLayer& layer,
                              const std::vector<std::byte>& rows) {
  const auto row_bytes = rows.size() / static_cast<std::size_t>(layer.tokens);
  std::vector<std::byte> padded(rows);
  if (paged(spec))
    padded.resize(static_cast<std::size_t>(pages_of(spec, layer)) * spec.page_size * row_bytes);
  return context.upload<std::byte>(padded);
}

std::vector<std::int32_t> lengths_of(const DumpLayer& layer) {
  std::vector<std::int32_t> lengths(static_cast<std::size_t>(layer.queries));
  for (int i = 0; i < layer.queries; ++i)
    lengths[i] = static_cast<std::int32_t>(layer.visible(i));
  return lengths;
}

/// Every sequence's pages are the cache's pages in order.
std::vector<std::int32_t> shared_table(std::int64_t pages, int sequences) {
  std::vector<std::int32_t> table(static_cast<std::size_t>(pages * sequences));
  for (int b = 0; b < sequences; ++b)
    std::iota(table.begin() + b * pages, table.begin() + (b + 1) * pages, 0);
  return table;
}

int selections_of(const codegen::Spec& spec, const DumpLayer& layer) {
  return layer.kv_heads * codegen::facts_of(spec).selections_per_kv_head;
}

}  // namespace

LayerRun::LayerRun(const Context& context, const runtime::OwnStream& stream, const DumpLayer& layer,
                   const codegen::Spec& spec, const LayerThresholds& thresholds)
    : context_(context),
      stream_(stream),
      layer_(layer),
      spec_(spec),
      kernel_(context.prepare(spec.text(), capacity_for(spec, layer))),
      batch_plan_(kernel_.plan({.batch = layer.queries, .dense_below = 0})),
      row_plan_(kernel_.plan({.batch = 1, .dense_below = 0})),
      workspace_(context.allocate<std::byte>(largest_workspace(batch_plan_, row_plan_))),
      key_(upload_rows(context, spec, layer, layer.k)),
      value_(upload_rows(context, spec, layer, layer.v)),
      query_(context.upload<std::byte>(layer.q)),
      codes_(context.allocate<std::byte>(kernel_.info().code_bytes)),
      key_thresholds_(context.upload<float>(thresholds.key)),
      query_thresholds_(context.upload<float>(thresholds.query.empty() ? thresholds.key : thresholds.query)),
      out_(context.allocate<float>(static_cast<std::size_t>(layer.queries) * layer.query_heads *
                                   layer.value_dim)),
      lengths_(context.upload<std::int32_t>(lengths_of(layer))),
      starts_(context.upload<std::int32_t>(
          std::vector<std::int32_t>(static_cast<std::size_t>(layer.queries), 0))),
      table_(context.upload<std::int32_t>(shared_table(pages_of(spec, layer), layer.queries))),
      positions_(context.allocate<std::int32_t>(static_cast<std::size_t>(layer.queries) *
                                                selections_of(spec, layer) * spec.budget)),
      counts_(context.allocate<std::int32_t>(static_cast<std::size_t>(layer.queries) *
                                             selections_of(spec, layer))) {
  const std::int64_t key_token = static_cast<std::int64_t>(layer.kv_heads) * layer.head_dim;
  const std::int64_t value_token = static_cast<std::int64_t>(layer.kv_heads) * layer.value_dim;
  cache_ = {.key = key_.data(),
            .value = value_.data(),
            .key_page_stride = key_token * spec.page_size,
            .key_token_stride = key_token,
            .key_head_stride = layer.head_dim,
            .value_page_stride = value_token * spec.page_size,
            .value_token_stride = value_token,
            .value_head_stride = layer.value_dim,
            .table = table_.data(),
            .table_stride = pages_of(spec, layer),
            .value_table = table_.data()};
  kernel_.encode({.cache = cache_,
                  .codes = codes_.data(),
                  .first_slot = 0,
                  .count = layer.tokens,
                  .key_thresholds = key_thresholds_.data()});
  context_.synchronize();
}

Call LayerRun::call(int first_query) const {
  const std::size_t query_bytes = layer_.q.size() / static_cast<std::size_t>(layer_.queries);
  const std::size_t out_row = static_cast<std::size_t>(layer_.query_heads) * layer_.value_dim;
  Call call;
  call.workspace = workspace_.data();
  call.workspace_bytes = workspace_.size();
  call.query = query_.data() + first_query * query_bytes;
  call.cache = cache_;
  call.codes = codes_.data();
  call.lengths = lengths_.data() + first_query;
  call.starts = starts_.data();
  call.query_thresholds = query_thresholds_.data();
  call.out = out_.data() + first_query * out_row;
  return call;
}

LayerResult LayerRun::run() {
  LayerResult result;
  Call whole = call(0);
  batch_plan_.decode(whole);
  result.out = out_.download();
  whole.positions = positions_.data();
  whole.counts = counts_.data();
  batch_plan_.select(whole);
  result.selection = {
      .budget = spec_.budget, .positions = positions_.download(), .counts = counts_.download()};
  result.decode = time(&Plan::decode);
  return result;
}

LayerResult LayerRun::attend_to(const Selection& given) {
  positions_.upload(given.positions);
  counts_.upload(given.counts);
  Call whole = call(0);
  whole.positions = positions_.data();
  whole.counts = counts_.data();
  batch_plan_.attend(whole);
  return {.selection = given, .out = out_.download(), .decode = {}};
}

Timing LayerRun::time_dense() { return time(&Plan::dense); }

Timing LayerRun::time(void (Plan::*operation)(const Call&, void*) const) const {
  constexpr double kSeconds = 0.3;
  const auto recording = stream_.record([&](runtime::Stream on) {
    for (int i = 0; i < layer_.queries; ++i)
      (row_plan_.*operation)(call(i), on);
  });
  return time_replays(*recording, layer_.queries, kSeconds);
}

}  // namespace adamas::tools
