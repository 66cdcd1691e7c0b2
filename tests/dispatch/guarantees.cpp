// What results may depend on, and what is counted: see guarantees.hpp.
#include "tests/dispatch/guarantees.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

/// The bits that belong to one sequence.
struct Answer {
  std::vector<std::uint16_t> decoded, dense;
  std::vector<float> decoded_lse, dense_lse;
  std::vector<std::int32_t> positions, counts;

  bool operator==(const Answer&) const = default;
};

std::vector<Answer> answers(const Context& context, const SmallShape& shape) {
  const SmallProblem problem(context, shape);
  problem.encode();
  const Attended decoded = problem.decode(), dense = problem.dense();
  const Selected selected = problem.select();
  for (const Counters& counters : {decoded.counters, dense.counters, selected.counters})
    CHECK(counters.status == 0);
  std::vector<Answer> all;
  for (std::size_t b = 0; b < shape.sequences.size(); ++b) {
    const std::size_t selections = problem.selections_per_sequence();
    all.push_back({.decoded = part(decoded.out, b, problem.out_per_sequence()),
                   .dense = part(dense.out, b, problem.out_per_sequence()),
                   .decoded_lse = part(decoded.lse, b, problem.lse_per_sequence()),
                   .dense_lse = part(dense.lse, b, problem.lse_per_sequence()),
                   .positions = part(selected.positions, b, selections * problem.spec.budget),
                   .counts = part(selected.counts, b, selections)});
  }
  return all;
}

/// Positions that query row `row` of a sequence sees.
std::int64_t seen(const SmallProblem& problem, const Sequence& sequence, int row) {
  return std::max(0, sequence.length - problem.spec.query_rows + row + 1);
}

}  // namespace

void check_rows_are_independent(const Context& context) {
  for (const std::string spec :
       {"head_dim=64 group=4 budget=200",
        "head_dim=64 group=4 budget=24 page_size=7 estimator=manhattan scope=kv_head "
        "query_rows=2",
        "head_dim=96 group=3 budget=24 cache_form=contiguous",
        "head_dim=64 group=2 budget=24 cache_form=slots",
        "head_dim=64 group=2 budget=24 cache_form=csr page_size=48",
        "head_dim=64 group=2 budget=24 cache_form=pointers page_size=16 tables=split"}) {
    INFO(spec);
    // Long enough for several chunks of every operation, and short ones that attend to everything.
    const std::vector<Sequence> batch = {{1, 1500}, {2, 3}, {3, 640}, {4, 129}, {5, 24}};
    const SmallShape whole{.spec = spec, .sequences = batch, .dense_below = 30};
    const std::vector<Answer> want = answers(context, whole);

    SmallShape other = whole;
    std::reverse(other.sequences.begin(), other.sequences.end());
    other.max_batch = 9;
    other.max_tokens = 5000;
    const std::vector<Answer> reversed = answers(context, other);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      INFO("sequence ", batch[i].id);
      CHECK_MESSAGE(reversed[batch.size() - 1 - i] == want[i], "in another order, with larger capacities");
      SmallShape alone = whole;
      alone.sequences = {batch[i]};
      CHECK_MESSAGE(answers(context, alone).front() == want[i], "alone");
    }
    CHECK_MESSAGE(answers(context, whole) == want, "again");
  }
}

void check_counters(const Context& context) {
  const std::vector<Sequence> batch = {{1, 300}, {2, 0}, {3, 20}, {4, 21}, {5, 1}};
  const SmallProblem problem(
      context, {.spec = "head_dim=64 group=3 budget=8 query_rows=2", .sequences = batch, .dense_below = 20});
  problem.encode();
  CHECK(context.read(problem.counters.data()).tokens_encoded ==
        static_cast<std::uint64_t>(problem.slots) * problem.shape.kv_heads);

  const auto heads = static_cast<std::uint64_t>(problem.query_heads());
  Counters step{}, dense{};  // of one call
  std::uint64_t short_tokens = 0;
  for (const Sequence& sequence : batch) {
    for (int row = 0; row < 2; ++row) {
      const auto tokens = static_cast<std::uint64_t>(seen(problem, sequence, row));
      if (tokens == 0) continue;
      const bool is_short = tokens <= 20;
      step.rows += heads;
      step.dense_short += is_short ? heads : 0;
      step.tokens_scanned += tokens * problem.shape.kv_heads;
      short_tokens += is_short ? tokens * problem.shape.kv_heads : 0;
      step.tokens_attended += heads * (is_short ? tokens : 8);
      dense.rows += heads;
      dense.dense_requested += heads;
      dense.tokens_attended += heads * tokens;
    }
  }
  const auto check = [](const Counters& got, const Counters& unit, std::uint64_t times) {
    CHECK(got.status == 0);
    CHECK(got.clamped_rows == 0);
    CHECK(got.tokens_encoded == 0);
    CHECK(got.rows == times * unit.rows);
    CHECK(got.tokens_scanned == times * unit.tokens_scanned);
    CHECK(got.tokens_attended == times * unit.tokens_attended);
    CHECK(got.dense_short == times * unit.dense_short);
    CHECK(got.dense_requested == times * unit.dense_requested);
    CHECK(got.dense_background == 0);
    CHECK(got.steps == times);
  };
  const auto counted_over = [&](int times, Operation operation, const Call& call) {
    context.clear(problem.counters.data());
    for (int i = 0; i < times; ++i)
      (problem.plan.*operation)(call, nullptr);
    return context.read(problem.counters.data());
  };
  check(counted_over(3, &Plan::decode, problem.call()), step, 3);
  check(counted_over(2, &Plan::dense, problem.call()), dense, 2);

  // Where nobody wants their lists, short rows are not scanned.
  Call listless = problem.call();
  listless.positions = nullptr;
  listless.counts = nullptr;
  Counters unlisted = step;
  unlisted.tokens_scanned -= short_tokens;
  check(counted_over(2, &Plan::decode, listless), unlisted, 2);

  // select answers the same rows, and attends to nothing.
  Counters selected{};
  selected.rows = step.rows;
  selected.tokens_scanned = step.tokens_scanned;
  check(counted_over(4, &Plan::select, problem.call()), selected, 4);

  // attend on what select listed: no row is dense, and each list is attended.
  Counters attended{};
  attended.rows = step.rows;
  for (const auto count : problem.counts.read<std::int32_t>())
    attended.tokens_attended += count;
  check(counted_over(2, &Plan::attend, problem.call()), attended, 2);

  // They add up over operations, and without counters nothing is counted.
  context.clear(problem.counters.data());
  problem.plan.decode(problem.call());
  Call uncounted = problem.call();
  uncounted.counters = nullptr;
  problem.plan.decode(uncounted);
  problem.plan.dense(problem.call());
  const Counters sum = context.read(problem.counters.data());
  CHECK(sum.rows == step.rows + dense.rows);
  CHECK(sum.tokens_attended == step.tokens_attended + dense.tokens_attended);
  CHECK(sum.dense_short == step.dense_short);
  CHECK(sum.dense_requested == dense.dense_requested);
  CHECK(sum.steps == 2);
}

void check_appending(const Context& context) {
  for (const std::string spec :
       {"head_dim=64 group=2 budget=24", "head_dim=96 group=3 budget=24 page_size=7 query_rows=2",
        "head_dim=64 budget=24 cache_form=contiguous estimator=manhattan",
        "head_dim=64 group=2 budget=24 cache_form=slots"}) {
    INFO(spec);
    const SmallShape shape{.spec = spec, .sequences = {{1, 300}, {2, 25}, {3, 0}, {4, 1}, {5, 90}}};
    const SmallProblem whole(context, shape), step(context, shape);
    whole.encode();
    const Attended want = whole.decode();

    // The same, where the rows' own tokens have no codes yet.
    std::vector<std::int32_t> earlier, own;
    for (int b = 0; b < step.batch(); ++b) {
      const int length = shape.sequences[static_cast<std::size_t>(b)].length, rows = step.spec.query_rows;
      for (int p = 0; p < length - rows; ++p)
        earlier.push_back(static_cast<std::int32_t>(step.slot(b, p)));
      for (int p = length - rows; p < length; ++p)
        own.push_back(p < 0 ? -1 : static_cast<std::int32_t>(step.slot(b, p)));
    }
    const DeviceMemory earlier_slots = DeviceMemory::of(context, earlier),
                       own_slots = DeviceMemory::of(context, own);
    EncodeArgs encode = step.encode_args();
    encode.slots = earlier_slots.as<std::int32_t>();
    encode.count = static_cast<std::int64_t>(earlier.size());
    step.kernel.encode(encode);
    Call call = step.call();
    call.append_slots = own_slots.as<std::int32_t>();
    call.key_thresholds = step.key_thresholds.as<float>();
    const Attended got = step.attend_with(&Plan::decode, call);
    CHECK(got.out == want.out);
    CHECK(got.lse == want.lse);
    const auto appended = std::count_if(own.begin(), own.end(), [](std::int32_t slot) { return slot >= 0; });
    CHECK(got.counters.tokens_encoded == static_cast<std::uint64_t>(appended * shape.kv_heads));
    CHECK(got.counters.status == 0);

    // What it has written, the next steps find.
    CHECK(step.decode().out == want.out);
    earlier.insert(earlier.end(), own.begin(), own.end());
    const DeviceMemory all = DeviceMemory::of(context, earlier);
    context.clear(step.counters.data());
    step.kernel.check({.cache = step.cache(),
                       .codes = step.codes.data(),
                       .slots = all.as<std::int32_t>(),
                       .count = static_cast<std::int64_t>(earlier.size()),
                       .key_thresholds = step.key_thresholds.as<float>(),
                       .counters = step.counters.data()});
    const Counters checked = context.read(step.counters.data());
    CHECK(checked.tokens_checked > 0);
    CHECK(checked.tokens_stale == 0);
  }
}

void check_codes_travel(const Context& context) {
  const std::vector<Sequence> batch = {{1, 100}};
  const SmallProblem from(context,
                          {.spec = "head_dim=80 group=2 budget=12 page_size=16", .sequences = batch});
  from.encode();
  const Selected want = from.select();
  // Canonical bytes by position, page by page as they lie.
  const std::size_t token = static_cast<std::size_t>(from.shape.kv_heads) * from.spec.head_dim;
  const DeviceMemory bytes(context, 100 * token);
  for (int p = 0; p < 100; p += 16) {
    from.kernel.codes_export({.codes = from.codes.data(),
                              .bytes = bytes.as<std::uint8_t>() + static_cast<std::size_t>(p) * token,
                              .first_slot = from.slot(0, p),
                              .count = std::min(16, 100 - p)});
  }
  context.synchronize();
  const auto exported = bytes.read<std::uint8_t>();
  CHECK(std::all_of(exported.begin(), exported.end(), [](auto code) { return code < 4; }));

  for (const std::string form : {"page_size=48", "page_size=1", "page_size=64", "cache_form=contiguous",
                                 "cache_form=slots", "cache_form=csr page_size=16"}) {
    INFO(form);
    const SmallProblem to(context, {.spec = "head_dim=80 group=2 budget=12 " + form, .sequences = batch});
    const int run = static_cast<int>(std::min<std::int64_t>(to.page_tokens, 100));
    const DeviceMemory back(context, 100 * token);
    for (int p = 0; p < 100; p += run) {
      const std::size_t at = static_cast<std::size_t>(p) * token;
      const std::int64_t count = std::min(run, 100 - p);
      to.kernel.codes_import({.codes = to.codes.data(),
                              .bytes = bytes.as<std::uint8_t>() + at,
                              .first_slot = to.slot(0, p),
                              .count = count});
      to.kernel.codes_export({.codes = to.codes.data(),
                              .bytes = back.as<std::uint8_t>() + at,
                              .first_slot = to.slot(0, p),
                              .count = count});
    }
    context.synchronize();
    CHECK(back.read<std::uint8_t>() == exported);
    const Selected got = to.select();
    CHECK(got.positions == want.positions);
    CHECK(got.counts == want.counts);
  }
}

}  // namespace adamas::tests
