// Workloads, arrays, and the one check that every engine's hand-over goes through: see engine.hpp.
#include "tests/conformance/engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "codegen/key_values.hpp"
#include "tests/dispatch/compare.hpp"
#include "tests/spec_to_oracle.hpp"

namespace adamas::tests {

Workload::Workload(const std::string& shape_text, std::uint64_t seed)
    : shape(shape_text), spec(codegen::Spec::parse(shape_text)), config(config_of(spec)) {
  oracle::Random random(seed);
  call.kv_heads = kKvHeads;
  call.scale = 1.0F / std::sqrt(static_cast<float>(spec.head_dim));
  if (spec.kv_type == codegen::ElementType::f8e4m3fn) {
    call.key_scale = {0.03F, 0.05F};
    call.value_scale = {0.04F, 0.02F};
  }
  for (const int length : lengths)
    problems.push_back(oracle::random_problem(random, config, call, length, oracle::RowKind::kNormal));
  thresholds = problems.front().thresholds;
}

int Workload::longest() const { return *std::max_element(lengths.begin(), lengths.end()); }

std::vector<std::byte> Workload::key(int sequence, int position, int head) const {
  const auto& problem = problems[static_cast<std::size_t>(sequence)];
  return oracle::pack(config.kv_type, problem.key_rows(config, call).at(position, head),
                      oracle::scale_of(call.key_scale, head));
}

std::vector<std::byte> Workload::value(int sequence, int position, int head) const {
  const auto& problem = problems[static_cast<std::size_t>(sequence)];
  return oracle::pack(config.kv_type, problem.value_rows(config, call).at(position, head),
                      oracle::scale_of(call.value_scale, head));
}

std::vector<std::byte> Workload::queries() const {
  std::vector<std::byte> all;
  for (const auto& problem : problems) {
    const auto rows = oracle::pack(config.q_type, problem.queries, 1);
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

HostArray::HostArray(const Workload& workload, std::vector<std::int64_t> shape)
    : unit_bytes_(codegen::storage_unit(workload.spec.kv_type).bytes),
      shape_(std::move(shape)),
      strides_(shape_.size(), 1) {
  for (std::size_t d = shape_.size() - 1; d > 0; --d)
    strides_[d - 1] = strides_[d] * shape_[d];
  bytes_.assign(static_cast<std::size_t>(strides_[0] * shape_[0] * unit_bytes_), std::byte{0xff});
}

void HostArray::put(std::initializer_list<std::int64_t> index, const std::vector<std::byte>& row) {
  REQUIRE(index.size() == shape_.size());
  std::int64_t at = 0;
  std::size_t d = 0;
  for (const std::int64_t i : index) {
    REQUIRE(i >= 0);
    REQUIRE(i < shape_[d]);
    at += i * strides_[d++];
  }
  std::copy(row.begin(), row.end(), bytes_.begin() + at * unit_bytes_);
}

std::vector<std::int32_t> shuffled(std::int64_t count, std::uint64_t seed) {
  oracle::Random random(seed);
  std::vector<std::int32_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(i) - 1))]);
  return order;
}

namespace {

/// The oracle's selections of all sequences, in the order of the call's lists.
std::vector<oracle::Selection> selections_of(const Workload& workload) {
  std::vector<oracle::Selection> all;
  const oracle::Config& config = workload.config;
  const oracle::Call& call = workload.call;
  const std::int64_t query_heads = std::int64_t{Workload::kKvHeads} * config.group;
  for (std::size_t b = 0; b < workload.problems.size(); ++b) {
    const auto& problem = workload.problems[b];
    const auto keys = oracle::encode_keys(config, problem.key_rows(config, call), workload.thresholds.key);
    const auto query =
        oracle::encode_queries(config, problem.query_rows(config, call), workload.thresholds.query);
    const auto scores = oracle::scores(config, call, {query, query_heads, config.head_dim},
                                       {keys, call.kv_heads, config.head_dim});
    const auto own = oracle::select_all(config, call, workload.lengths[b], scores);
    all.insert(all.end(), own.begin(), own.end());
  }
  return all;
}

}  // namespace

void check_handover(const Context& context, const Workload& workload, const Handover& handover) {
  const std::string spec = workload.shape + " " + handover.spec;
  INFO(spec);
  const Kernel kernel = context.prepare(spec, handover.capacity);
  // The engine's longest sequences are beyond the budget; the shortest is not, and attends to all it has.
  const Plan plan = kernel.plan({.batch = workload.batch()});
  const auto& config = workload.config;
  const std::size_t query_heads = static_cast<std::size_t>(Workload::kKvHeads) * config.group;
  const std::size_t lists = static_cast<std::size_t>(plan.info().selections) * workload.lengths.size();

  const auto codes = DeviceMemory(context, kernel.info().code_bytes);
  const auto workspace = DeviceMemory(context, plan.info().workspace_bytes);
  const auto counters = DeviceMemory(context, ADAMAS_COUNTERS_BYTES);
  const auto key_thresholds = DeviceMemory::of(context, workload.thresholds.key);
  const auto query_thresholds = DeviceMemory::of(context, workload.thresholds.query);
  const auto slots = DeviceMemory::of(context, handover.slot_mapping);
  const auto queries = DeviceMemory::of(context, workload.queries());
  const auto lengths = DeviceMemory::of(context, handover.lengths);
  const auto starts = DeviceMemory::of(context, handover.starts);
  const auto positions = DeviceMemory(context, lists * static_cast<std::size_t>(config.budget) * 4);
  const auto counts = DeviceMemory(context, lists * 4);
  const std::size_t row_heads = workload.lengths.size() * query_heads;
  const auto out =
      DeviceMemory(context, row_heads * config.value_dim * codegen::element_bytes(workload.spec.out_type));
  const auto lse = DeviceMemory(context, row_heads * 4);

  context.clear(counters.data());
  kernel.encode({.cache = handover.cache,
                 .codes = codes.data(),
                 .slots = slots.as<std::int32_t>(),
                 .count = static_cast<std::int64_t>(handover.slot_mapping.size()),
                 .key_thresholds = key_thresholds.as<float>(),
                 .counters = counters.data()});
  Call call{.workspace = workspace.data(),
            .workspace_bytes = workspace.size(),
            .query = queries.data(),
            .cache = handover.cache,
            .codes = codes.data(),
            .lengths = lengths.as<std::int32_t>(),
            .starts = handover.starts.empty() ? nullptr : starts.as<std::int32_t>(),
            .query_thresholds = query_thresholds.as<float>(),
            .out = out.data(),
            .lse = lse.as<float>(),
            .counters = counters.data()};
  plan.decode(call);
  const Counters counted = context.read(counters.data());
  const auto got_out = read_floats(out, config.out_type);
  const auto got_lse = lse.read<float>();

  // Which tokens: bit by bit. As slots too, the index lists of engines whose kernels gather.
  const auto want = selections_of(workload);
  REQUIRE(want.size() == lists);
  call.positions = positions.as<std::int32_t>();
  call.counts = counts.as<std::int32_t>();
  call.counters = nullptr;
  plan.decode(call);
  const auto got = positions.read<std::int32_t>();
  const auto got_counts = counts.read<std::int32_t>();
  call.positions_are_slots = 1;
  plan.decode(call);
  const auto got_slots = positions.read<std::int32_t>();
  std::size_t wrong = 0, wrong_slots = 0, wrong_counts = 0;
  for (std::size_t list = 0; list < lists; ++list) {
    wrong_counts += got_counts[list] != want[list].count;
    const auto& own_slots = handover.slots[list / static_cast<std::size_t>(plan.info().selections)];
    for (std::size_t i = 0; i < static_cast<std::size_t>(config.budget); ++i) {
      const std::size_t at = list * static_cast<std::size_t>(config.budget) + i;
      const std::int32_t position = want[list].positions[i];
      wrong += got[at] != position;
      wrong_slots += got_slots[at] != (position < 0 ? -1 : own_slots[static_cast<std::size_t>(position)]);
    }
  }
  CHECK(wrong == 0);
  CHECK(wrong_counts == 0);
  CHECK(wrong_slots == 0);

  // What attention makes of them.
  std::uint64_t tokens = 0, sparse_tokens = 0, rows = 0, short_rows = 0, attended = 0;
  for (std::size_t b = 0; b < workload.problems.size(); ++b) {
    const auto& problem = workload.problems[b];
    const auto keys = problem.key_rows(config, workload.call);
    const auto step = oracle::decode(config, workload.call, problem.query_rows(config, workload.call), keys,
                                     problem.value_rows(config, workload.call), workload.thresholds);
    check_rows(step.out, got_out, config.value_dim, b * query_heads, config.out_type, "decode");
    check_lse(step.lse, got_lse, b * query_heads, "decode");
    const auto length = static_cast<std::uint64_t>(workload.lengths[b]);
    const bool sparse = workload.lengths[b] > config.budget;
    tokens += length;
    rows += length > 0 ? query_heads : 0;
    short_rows += length > 0 && !sparse ? query_heads : 0;
    sparse_tokens += sparse ? length : 0;
    attended += query_heads * std::min<std::uint64_t>(length, static_cast<std::uint64_t>(config.budget));
  }
  // The counters say that the sparse path ran, where it should have, and nowhere else.
  CHECK(counted.status == 0);
  CHECK(counted.tokens_encoded == tokens * Workload::kKvHeads);
  CHECK(counted.rows == rows);
  CHECK(counted.dense_short == short_rows);
  CHECK(counted.dense_requested == 0);
  CHECK(counted.tokens_scanned == sparse_tokens * Workload::kKvHeads);
  CHECK(counted.tokens_attended == attended);
}

}  // namespace adamas::tests
