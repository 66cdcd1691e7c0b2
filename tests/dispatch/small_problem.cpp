// Building and running a small problem: see small_problem.hpp.
#include "tests/dispatch/small_problem.hpp"

#include <algorithm>
#include <limits>

#include "codegen/facts.hpp"
#include "tests/dispatch/forced_tuning.hpp"
#include "tests/oracle/numbers.hpp"
#include "tests/oracle/random_data.hpp"

namespace adamas::tests {
namespace {

constexpr std::uint16_t kNan = 0xffff;

std::int64_t longest(const SmallShape& shape) {
  std::int64_t most = 1;
  for (const Sequence& sequence : shape.sequences)
    most = std::max<std::int64_t>(most, sequence.length);
  return most;
}

bool is_paged(const codegen::Spec& spec) { return spec.cache_form != codegen::CacheForm::contiguous; }

/// Gaussian rows as f16, the same for the same id.
std::vector<std::uint16_t> rows_of(int id, std::uint64_t salt, std::int64_t count, std::int64_t dim) {
  oracle::Random random(static_cast<std::uint64_t>(id) * 1000 + salt);
  return oracle::pack16(oracle::Format::kF16, oracle::random_rows(random, oracle::RowKind::kNormal, count,
                                                                  dim, oracle::Format::kF16));
}

}  // namespace

SmallProblem::SmallProblem(const Context& context_in, const SmallShape& shape_in)
    : SmallProblem(context_in, shape_in, codegen::Spec::parse(shape_in.spec)) {}

SmallProblem::SmallProblem(const Context& context_in, const SmallShape& shape_in,
                           const codegen::Spec& spec_in)
    : context(context_in),
      shape(shape_in),
      spec(spec_in),
      max_tokens(shape.max_tokens > 0 ? shape.max_tokens : longest(shape)),
      page_tokens(is_paged(spec) ? codegen::facts_of(spec).page_tokens : max_tokens),
      pages_per_sequence((max_tokens + page_tokens - 1) / page_tokens),
      kernel(context.prepare(shape.spec,
                             {.max_batch = std::max(shape.max_batch, batch()),
                              .kv_heads = shape.kv_heads,
                              .max_tokens = max_tokens},
                             ForcedTuning::apply(shape.tuning))),
      plan(kernel.plan({.batch = batch(), .dense_below = shape.dense_below})),
      selections(plan.info().selections),
      slots(std::max(shape.max_batch, batch()) * pages_per_sequence * page_tokens),
      key(DeviceMemory::of(context, cache_rows(spec.head_dim, 1))),
      value(DeviceMemory::of(context, cache_rows(spec.value_dim, 2))),
      query(DeviceMemory::of(context, query_rows())),
      lengths(context, static_cast<std::size_t>(batch()) * 4),
      starts(context, static_cast<std::size_t>(batch()) * 4, 0),
      table(DeviceMemory::of(context, block_tables())),
      value_table(DeviceMemory::of(context, block_tables())),
      indptr(DeviceMemory::of(context, page_ranges())),
      addresses(DeviceMemory::of(context, page_addresses())),
      key_thresholds(DeviceMemory::of(context, thresholds(0.98F))),
      query_thresholds(DeviceMemory::of(context, thresholds(0.3F))),
      codes(context, kernel.info().code_bytes),
      workspace(context, std::max(plan.info().workspace_bytes, plan.info().dense_workspace_bytes)),
      out(context, row_heads() * spec.value_dim * 2),
      lse(context, row_heads() * 4),
      positions(context, static_cast<std::size_t>(plan.info().rows) * selections * spec.budget * 4),
      counts(context, static_cast<std::size_t>(plan.info().rows) * selections * 4),
      counters(context, ADAMAS_COUNTERS_BYTES) {
  std::vector<std::int32_t> given;
  for (const Sequence& sequence : shape.sequences)
    given.push_back(sequence.length);
  lengths.write(given.data(), lengths.size());
}

/// Last page first: a page's number is not its place in the sequence.
std::int64_t SmallProblem::page_of(int b, std::int64_t block) const {
  return is_paged(spec) ? (b + 1) * pages_per_sequence - 1 - block : b;
}

std::int64_t SmallProblem::slot(int b, int position) const {
  return page_of(b, position / page_tokens) * page_tokens + position % page_tokens;
}

std::vector<std::int32_t> SmallProblem::block_tables() const {
  std::vector<std::int32_t> pages;
  for (int b = 0; b < batch(); ++b) {
    for (std::int64_t i = 0; i < pages_per_sequence; ++i)
      pages.push_back(static_cast<std::int32_t>(page_of(b, i)));
  }
  return pages;
}

std::vector<std::int32_t> SmallProblem::page_ranges() const {
  std::vector<std::int32_t> ranges;
  for (int b = 0; b <= batch(); ++b)
    ranges.push_back(static_cast<std::int32_t>(b * pages_per_sequence));
  return ranges;
}

/// K in pages of the one array; V is found by its offset.
std::vector<const void*> SmallProblem::page_addresses() const {
  std::vector<const void*> pages;
  const std::int64_t page = page_tokens * shape.kv_heads * spec.head_dim;
  for (std::int64_t i = 0; i < slots / page_tokens; ++i)
    pages.push_back(key.as<std::uint16_t>() + i * page);
  return pages;
}

std::vector<std::uint16_t> SmallProblem::cache_rows(int dim, std::uint64_t salt) const {
  const std::int64_t token = std::int64_t{shape.kv_heads} * dim;
  std::vector<std::uint16_t> rows(static_cast<std::size_t>(slots * token), kNan);
  for (int b = 0; b < batch(); ++b) {
    const Sequence& sequence = shape.sequences[static_cast<std::size_t>(b)];
    const auto own = rows_of(sequence.id, salt, std::int64_t{sequence.length} * shape.kv_heads, dim);
    for (int p = 0; p < sequence.length; ++p) {
      std::copy_n(own.begin() + p * token, token, rows.begin() + slot(b, p) * token);
    }
  }
  return rows;
}

std::vector<std::uint16_t> SmallProblem::query_rows() const {
  std::vector<std::uint16_t> rows;
  for (const Sequence& sequence : shape.sequences) {
    const auto own = rows_of(sequence.id, 3, std::int64_t{spec.query_rows} * query_heads(), spec.head_dim);
    rows.insert(rows.end(), own.begin(), own.end());
  }
  return rows;
}

/// Evenly spaced between -outer and outer, for every K/V head.
std::vector<float> SmallProblem::thresholds(float outer) const {
  std::vector<float> all;
  for (int head = 0; head < shape.kv_heads; ++head) {
    for (int i = 1; i < spec.buckets; ++i) {
      const int middle = spec.buckets / 2;
      all.push_back(outer * static_cast<float>(i - middle) / static_cast<float>(std::max(1, middle - 1)));
    }
  }
  return all;
}

Cache SmallProblem::cache() const {
  const std::int64_t key_token = std::int64_t{shape.kv_heads} * spec.head_dim;
  const std::int64_t value_token = std::int64_t{shape.kv_heads} * spec.value_dim;
  Cache cache{.key = key.data(),
              .value = value.data(),
              .key_page_stride = page_tokens * key_token,
              .key_token_stride = key_token,
              .key_head_stride = spec.head_dim,
              .value_page_stride = page_tokens * value_token,
              .value_token_stride = value_token,
              .value_head_stride = spec.value_dim,
              .table = table.as<std::int32_t>(),
              .table_stride = pages_per_sequence};
  if (spec.cache_form == codegen::CacheForm::slots) cache.key_page_stride = cache.value_page_stride = -77;
  if (spec.cache_form == codegen::CacheForm::csr) {
    cache.table_stride = batch() * pages_per_sequence;
    cache.indptr = indptr.as<std::int32_t>();
  }
  if (spec.cache_form == codegen::CacheForm::pointers) {
    cache.key = cache.value = nullptr;
    cache.page_addresses = addresses.as<const void*>();
  }
  if (spec.kv_type == codegen::ElementType::f8e4m3fn) {
    cache.key_scale = cache.value_scale = key_thresholds.as<float>();  // any numbers
  }
  if (spec.tables == codegen::Tables::split) cache.value_table = value_table.as<std::int32_t>();
  return cache;
}

EncodeArgs SmallProblem::encode_args() const {
  return {.cache = cache(),
          .codes = codes.data(),
          .first_slot = 0,
          .count = slots,
          .key_thresholds = key_thresholds.as<float>(),
          .counters = counters.data()};
}

Call SmallProblem::call() const {
  return {.workspace = workspace.data(),
          .workspace_bytes = workspace.size(),
          .query = query.data(),
          .cache = cache(),
          .codes = codes.data(),
          .lengths = lengths.as<std::int32_t>(),
          .starts = starts.as<std::int32_t>(),
          .query_thresholds = query_thresholds.as<float>(),
          .soft_cap = 30,
          .window = std::numeric_limits<std::int32_t>::max(),
          .out = out.data(),
          .lse = spec.lse ? lse.as<float>() : nullptr,
          .positions = positions.as<std::int32_t>(),
          .counts = counts.as<std::int32_t>(),
          .counters = counters.data()};
}

void SmallProblem::encode() const {
  context.clear(counters.data());
  kernel.encode(encode_args());
  context.synchronize();
}

Attended SmallProblem::attend_with(Operation operation, const Call& call) const {
  const bool reads_positions = operation == &Plan::attend;
  const auto listed = positions.read<std::int32_t>(), listed_counts = counts.read<std::int32_t>();
  poison_outputs();
  if (reads_positions) {
    positions.write(listed.data(), positions.size());
    counts.write(listed_counts.data(), counts.size());
  }
  context.clear(counters.data());
  (plan.*operation)(call, nullptr);
  Attended result;
  result.counters = context.read(counters.data());
  result.out = out.read<std::uint16_t>();
  result.lse = lse.read<float>();
  return result;
}

Selected SmallProblem::select(const Call& call) const {
  poison_outputs();
  context.clear(counters.data());
  plan.select(call);
  Selected result;
  result.counters = context.read(counters.data());
  result.positions = positions.read<std::int32_t>();
  result.counts = counts.read<std::int32_t>();
  return result;
}

void SmallProblem::poison_outputs() const {
  for (const DeviceMemory* memory : {&out, &lse, &positions, &counts, &counters}) {
    const std::vector<std::byte> poison(memory->size(), std::byte{0xff});
    memory->write(poison.data(), poison.size());
  }
}

bool SmallProblem::outputs_are_poison() const {
  const auto is_poison = [](const DeviceMemory* memory) {
    const auto bytes = memory->read<std::byte>();
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0xff}; });
  };
  const std::initializer_list<const DeviceMemory*> all = {&out, &lse, &positions, &counts, &counters, &codes};
  return std::all_of(all.begin(), all.end(), is_poison);
}

}  // namespace adamas::tests
