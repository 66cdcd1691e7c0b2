// Data that only the device can see is wrong: see guarantees.hpp. Buffers on the CPU lie between unreadable
// pages, so that what should have been clamped and was not ends the test program.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/dispatch/guarantees.hpp"
#include "tests/dispatch/small_problem.hpp"
#include "tests/oracle/numbers.hpp"

namespace adamas::tests {
namespace {

constexpr std::int32_t kHuge = std::numeric_limits<std::int32_t>::max();
constexpr std::int32_t kLow = std::numeric_limits<std::int32_t>::min();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr Operation kAttention[] = {&Plan::decode, &Plan::dense};

template <class T>
void write(const DeviceMemory& memory, const std::vector<T>& values) {
  REQUIRE(values.size() * sizeof(T) <= memory.size());
  memory.write(values.data(), values.size() * sizeof(T));
}

void check_zero_output(const SmallProblem& problem, const Attended& attended, int b) {
  INFO("sequence ", b);
  for (const auto bits : part(attended.out, static_cast<std::size_t>(b), problem.out_per_sequence())) {
    REQUIRE(bits == 0);
  }
  for (const float lse : part(attended.lse, static_cast<std::size_t>(b), problem.lse_per_sequence())) {
    CHECK(lse == -kInfinity);
  }
}

void check_same_output(const SmallProblem& problem, const Attended& want, const Attended& got, int b) {
  INFO("sequence ", b);
  const auto index = static_cast<std::size_t>(b);
  CHECK(part(got.out, index, problem.out_per_sequence()) ==
        part(want.out, index, problem.out_per_sequence()));
  CHECK(part(got.lse, index, problem.lse_per_sequence()) ==
        part(want.lse, index, problem.lse_per_sequence()));
}

void check_same_selection(const SmallProblem& problem, const Selected& want, const Selected& got, int b) {
  INFO("sequence ", b);
  const auto index = static_cast<std::size_t>(b);
  const std::size_t selections = problem.selections_per_sequence();
  const std::size_t list = selections * static_cast<std::size_t>(problem.spec.budget);
  CHECK(part(got.positions, index, list) == part(want.positions, index, list));
  CHECK(part(got.counts, index, selections) == part(want.counts, index, selections));
}

}  // namespace

void check_inert_rows(const Context& context) {
  // Sequences 0 and 2 are padding; of the three rows of sequence 3 only the last one has a token to stand at.
  const SmallProblem problem(context, {.spec = "head_dim=64 group=2 budget=8 query_rows=3",
                                       .sequences = {{1, 0}, {2, 40}, {3, 0}, {4, 1}}});
  problem.encode();
  const std::size_t row_out = problem.out_per_sequence() / 3, row_lse = problem.lse_per_sequence() / 3;
  for (const Operation operation : kAttention) {
    const Attended attended = problem.attend_with(operation, problem.call());
    CHECK(attended.counters.status == 0);
    CHECK(attended.counters.rows == 4 * static_cast<std::uint64_t>(problem.query_heads()));
    check_zero_output(problem, attended, 0);
    check_zero_output(problem, attended, 2);
    for (std::size_t row = 0; row < 12; ++row) {
      const bool inert = row < 3 || (row >= 6 && row < 11);
      INFO("row ", row);
      for (const float lse : part(attended.lse, row, row_lse))
        CHECK(std::isfinite(lse) != inert);
      const auto out = part(attended.out, row, row_out);
      CHECK(std::all_of(out.begin(), out.end(), [](auto bits) { return bits == 0; }) == inert);
    }
  }
  const Selected selected = problem.select();
  CHECK(selected.counters.status == 0);
  const auto budget = static_cast<std::size_t>(problem.spec.budget);
  for (std::size_t i = 0; i < selected.counts.size(); ++i) {
    const std::size_t row = i / static_cast<std::size_t>(problem.selections);
    const bool inert = row < 3 || (row >= 6 && row < 11);
    const auto list = part(selected.positions, i, budget);
    INFO("selection ", i, " of row ", row);
    CHECK(selected.counts[i] == (inert ? 0 : row == 11 ? 1 : 8));
    CHECK(std::count(list.begin(), list.end(), -1) == 8 - selected.counts[i]);
  }
}

void check_wild_lengths(const Context& context) {
  for (const std::string spec : {"head_dim=64 group=2 budget=8 page_size=8",
                                 "head_dim=64 group=2 budget=8 cache_form=contiguous query_rows=2"}) {
    INFO(spec);
    const SmallProblem problem(context,
                               {.spec = spec, .sequences = {{1, 40}, {2, 40}, {3, 40}, {4, 40}, {5, 7}}});
    problem.encode();
    const std::vector<std::int32_t> inside = {40, 40, 0, 0, 7};
    const std::vector<std::int32_t> outside = {41, kHuge, -1, kLow, 7};
    const auto heads = static_cast<std::uint64_t>(problem.query_heads()) * problem.spec.query_rows;
    for (const Operation operation : kAttention) {
      write(problem.lengths, inside);
      const Attended want = problem.attend_with(operation, problem.call());
      CHECK(want.counters.status == 0);
      CHECK(want.counters.clamped_rows == 0);
      write(problem.lengths, outside);
      const Attended got = problem.attend_with(operation, problem.call());
      CHECK(got.counters.status == ADAMAS_STATUS_LENGTH_CLAMPED);
      CHECK(got.counters.clamped_rows == 4 * heads);
      CHECK(got.counters.rows == want.counters.rows);
      CHECK(got.counters.tokens_attended == want.counters.tokens_attended);
      CHECK(got.out == want.out);
      CHECK(got.lse == want.lse);
    }
    write(problem.lengths, inside);
    const Selected want = problem.select();
    write(problem.lengths, outside);
    const Selected got = problem.select();
    CHECK(got.counters.status == ADAMAS_STATUS_LENGTH_CLAMPED);
    CHECK(got.counters.clamped_rows == 4 * heads);
    CHECK(got.positions == want.positions);
    CHECK(got.counts == want.counts);
  }
}

void check_wild_tables(const Context& context) {
  constexpr std::int32_t kWild[] = {kHuge, kLow, -1, 1 << 20, 6, 5, 1 << 30, -(1 << 30)};
  for (const std::string spec :
       {"head_dim=64 group=2 budget=8 page_size=16", "head_dim=80 budget=8 page_size=5",
        "head_dim=64 group=2 budget=8 cache_form=slots",
        "head_dim=64 group=2 budget=8 cache_form=csr page_size=16",
        "head_dim=64 group=2 budget=8 page_size=16 tables=split",
        "head_dim=64 group=2 budget=8 cache_form=pointers page_size=16 tables=split",
        "head_dim=64 group=2 budget=8 cache_form=contiguous"}) {
    INFO(spec);
    const bool paged = spec.find("contiguous") == spec.npos;
    const SmallProblem problem(context, {.spec = spec, .sequences = {{1, 70}, {2, 70}, {3, 33}}});
    problem.encode();
    const Attended decoded = problem.decode(), dense = problem.dense();
    const Selected selected = problem.select();
    CHECK(decoded.counters.status == 0);

    const auto survives = [&] {
      for (const Operation operation : kAttention) {
        const Attended got = problem.attend_with(operation, problem.call());
        CHECK(got.counters.status == ADAMAS_STATUS_BAD_TABLE);
        CHECK(got.counters.rows == decoded.counters.rows);
        check_same_output(problem, operation == &Plan::dense ? dense : decoded, got, 2);
      }
      check_same_selection(problem, selected, problem.select(), 2);
      Call call = problem.call();
      call.positions_are_slots = 1;
      for (const std::int32_t slot : problem.select(call).positions) {
        REQUIRE(slot >= -1);
        REQUIRE(slot < problem.slots);
      }
    };
    if (paged) {
      const auto clean = problem.table.read<std::int32_t>();
      auto wild = clean;  // the tables of the first two sequences
      for (std::size_t i = 0; i < 2 * static_cast<std::size_t>(problem.pages_per_sequence); ++i) {
        wild[i] = kWild[i % std::size(kWild)];
      }
      write(problem.table, wild);
      survives();
      write(problem.table, clean);
    }
    if (problem.spec.tables == codegen::Tables::split) {
      const auto clean = problem.value_table.read<std::int32_t>();
      auto wild = clean;
      for (std::size_t i = 0; i < 2 * static_cast<std::size_t>(problem.pages_per_sequence); ++i) {
        wild[i] = kWild[i % std::size(kWild)];
      }
      write(problem.value_table, wild);
      survives();
      write(problem.value_table, clean);
    }
    if (problem.spec.cache_form == codegen::CacheForm::pointers) {
      // The first two sequences' pages are nowhere: there is nothing to attend to, and nothing to encode.
      const auto clean = problem.addresses.read<const void*>();
      auto wild = clean;
      std::fill_n(wild.begin(), 2 * problem.pages_per_sequence, nullptr);
      write(problem.addresses, wild);
      survives();
      check_zero_output(problem, problem.dense(), 0);
      check_zero_output(problem, problem.decode(), 1);
      problem.encode();
      const Counters counters = context.read(problem.counters.data());
      CHECK(counters.status == 0);
      CHECK(counters.tokens_encoded ==
            static_cast<std::uint64_t>(problem.slots / 3) * problem.shape.kv_heads);
      write(problem.addresses, clean);
    }
    if (problem.spec.cache_form == codegen::CacheForm::csr) {
      // Ranges of the first two sequences: outside the table, backwards, empty, too short.
      const auto clean = problem.indptr.read<std::int32_t>();
      for (const auto& [first, second] : {std::pair{kHuge, kLow}, std::pair{-1, kHuge}, std::pair{0, 0},
                                          std::pair{7, 3}, std::pair{0, clean[1] - 1}}) {
        INFO("ranges ", first, " ", second);
        write(problem.indptr, std::vector<std::int32_t>{first, second, clean[2], clean[3]});
        survives();
      }
      write(problem.indptr, clean);
    }
    for (const auto& starts :
         {std::vector<std::int32_t>{kHuge, kLow, 0}, std::vector<std::int32_t>{-7, 60, 0},
          std::vector<std::int32_t>{kHuge - 69, 1 << 28, 0}}) {
      write(problem.starts, starts);
      survives();
    }
    write(problem.starts, std::vector<std::int32_t>{0, 0, 0});
    const Attended again = problem.decode();
    CHECK(again.out == decoded.out);
    CHECK(again.counters.status == 0);
  }
}

void check_wild_slots(const Context& context) {
  const SmallProblem problem(context, {.spec = "head_dim=64 budget=8 page_size=8"});
  const auto encoded_by = [&](const std::vector<std::int32_t>& slots) {
    const std::vector<std::byte> poison(problem.codes.size(), std::byte{0xff});
    write(problem.codes, poison);
    const auto listed = DeviceMemory::of(context, slots);
    EncodeArgs args = problem.encode_args();
    args.slots = listed.as<std::int32_t>();
    args.count = static_cast<std::int64_t>(slots.size());
    context.clear(problem.counters.data());
    problem.kernel.encode(args);
    return context.read(problem.counters.data());
  };
  const auto last = static_cast<std::int32_t>(problem.slots) - 1;
  const Counters clean = encoded_by({0, 5, last});
  const auto want = problem.codes.read<std::uint8_t>();
  CHECK(clean.status == 0);
  CHECK(clean.tokens_encoded == 3 * static_cast<std::uint64_t>(problem.shape.kv_heads));

  // Padding is no mistake.
  const Counters padded = encoded_by({-1, 0, -1, 5, -2, last, kLow});
  CHECK(padded.status == 0);
  CHECK(padded.tokens_encoded == clean.tokens_encoded);
  CHECK(problem.codes.read<std::uint8_t>() == want);

  const Counters wild = encoded_by({last + 1, 0, kHuge, 5, -1, last, 1 << 30});
  CHECK(wild.status == ADAMAS_STATUS_BAD_SLOT);
  CHECK(wild.tokens_encoded == clean.tokens_encoded);
  CHECK(problem.codes.read<std::uint8_t>() == want);
}

void check_wild_positions(const Context& context) {
  // Two selections (query heads) of one row at position 29, of which a window of 20 is seen: 10..29.
  const SmallProblem problem(context, {.spec = "head_dim=64 group=2 budget=8 window=on",
                                       .sequences = {{1, 30}},
                                       .kv_heads = 1,
                                       .max_tokens = 64});
  Call call = problem.call();
  call.window = 20;
  const auto attend = [&](const std::vector<std::int32_t>& positions,
                          const std::vector<std::int32_t>& counts) {
    write(problem.positions, positions);
    write(problem.counts, counts);
    return problem.attend_with(&Plan::attend, call);
  };
  const Attended want = attend({12, 14, 29, -1, -1, -1, -1, -1, 10, 20, -1, -1, -1, -1, -1, -1}, {3, 2});
  CHECK(want.counters.status == 0);
  CHECK(want.counters.tokens_attended == 5);
  const Attended got = attend({-3, 12, 30, 14, kHuge, 29, 9, kLow, 10, 63, 20, 64, -1, 0, 5, 99}, {8, 6});
  CHECK(got.counters.status == ADAMAS_STATUS_BAD_POSITION);
  CHECK(got.counters.tokens_attended == 5);
  // The same tokens, though at other places of the list: equal but for the order of the sums.
  const auto want_values = oracle::unpack16(oracle::Format::kF16, want.out);
  const auto got_values = oracle::unpack16(oracle::Format::kF16, got.out);
  for (std::size_t i = 0; i < want_values.size(); ++i) {
    REQUIRE(std::abs(got_values[i] - want_values[i]) <= 2e-3F * (1 + std::abs(want_values[i])));
  }
  for (std::size_t i = 0; i < want.lse.size(); ++i)
    CHECK(std::abs(got.lse[i] - want.lse[i]) <= 1e-4F);

  // Only what is skipped: nothing is left to attend to.
  const Attended none = attend(std::vector<std::int32_t>(16, 64), {8, 8});
  CHECK(none.counters.status == ADAMAS_STATUS_BAD_POSITION);
  CHECK(none.counters.tokens_attended == 0);
  check_zero_output(problem, none, 0);

  // Counts beyond the budget end with it, negative ones are none.
  const std::vector<std::int32_t> full = {11, 12, 13, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25, 26, 27, 28};
  const Attended eight = attend(full, {8, 0});
  const Attended wild = attend(full, {kHuge, kLow});
  CHECK(wild.out == eight.out);
  CHECK(wild.lse == eight.lse);
  CHECK(wild.counters.tokens_attended == 8);
}

void check_wild_budgets(const Context& context) {
  const SmallProblem problem(context, {.sequences = {{1, 50}, {2, 50}, {3, 50}, {4, 50}}});
  problem.encode();
  const auto select = [&](const std::vector<std::int32_t>& budgets) {
    const auto memory = DeviceMemory::of(context, budgets);
    Call call = problem.call();
    call.row_budgets = memory.as<std::int32_t>();
    return problem.select(call);
  };
  const Selected want = select({0, 16, 0, 16});
  const Selected got = select({-1, 17, kLow, kHuge});
  CHECK(got.positions == want.positions);
  CHECK(got.counts == want.counts);
  CHECK(std::count(got.counts.begin(), got.counts.end(), 0) == 2 * problem.selections);
  CHECK(std::count(got.counts.begin(), got.counts.end(), 16) == 2 * problem.selections);
}

void check_wild_numbers(const Context& context) {
  for (const std::string estimator : {"dot", "manhattan"}) {
    INFO(estimator);
    const SmallProblem problem(context, {.spec = "head_dim=64 group=2 budget=8 estimator=" + estimator,
                                         .sequences = {{1, 60}, {2, 45}}});
    problem.encode();
    const Attended want = problem.decode();
    const std::size_t out_head = static_cast<std::size_t>(problem.spec.group) * problem.spec.value_dim;
    const auto same_second_head = [&](const Attended& got) {
      for (std::size_t b = 0; b < 2; ++b) {
        INFO("sequence ", b);
        CHECK(part(got.out, 2 * b + 1, out_head) == part(want.out, 2 * b + 1, out_head));
      }
    };
    // Thresholds of the first K/V head: NaN, infinite, in the wrong order.
    for (const auto& wild : {std::array{kNan, kNan, kNan}, std::array{-kInfinity, 0.F, kInfinity},
                             std::array{kInfinity, kNan, -kInfinity}, std::array{3.F, 0.F, -3.F}}) {
      for (const DeviceMemory* memory : {&problem.key_thresholds, &problem.query_thresholds}) {
        const auto clean = memory->read<float>();
        auto changed = clean;
        std::copy(wild.begin(), wild.end(), changed.begin());
        write(*memory, changed);
        problem.encode();
        const Attended got = problem.decode();
        CHECK(got.counters.status == 0);
        same_second_head(got);
        write(*memory, clean);
      }
    }
    problem.encode();

    // A key, a value and a query of the first sequence: the second one is not to feel it.
    for (const std::uint16_t bits : {0x7e00, 0x7c00, 0xfc00}) {  // NaN, inf, -inf
      for (const DeviceMemory* memory : {&problem.key, &problem.value, &problem.query}) {
        const auto clean = memory->read<std::uint16_t>();
        auto changed = clean;
        const bool is_query = memory == &problem.query;
        const std::size_t at = is_query ? 5 : static_cast<std::size_t>(problem.slot(0, 59)) * 128 + 5;
        changed[at] = bits;
        write(*memory, changed);
        problem.encode();
        const Attended got = problem.decode();
        CHECK(got.counters.status == 0);
        CHECK(got.counters.tokens_attended == want.counters.tokens_attended);
        check_same_output(problem, want, got, 1);
        write(*memory, clean);
      }
    }
    problem.encode();
    CHECK(problem.decode().out == want.out);
  }
}

}  // namespace adamas::tests
