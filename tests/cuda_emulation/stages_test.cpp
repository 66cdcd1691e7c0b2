// The stages of CUDA kernels, emitted for several Specs and run on the CPU, against the oracle: codes, query
// integers, scores and selections bit by bit, attention within the contract's tolerance, and what bad data
// from a host may not break.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "tests/cuda_emulation/block.hpp"
#include "tests/cuda_emulation/checks.hpp"
#include "tests/cuda_emulation/problem.hpp"
#include "tests/cuda_emulation/specs.hpp"
#include "tests/oracle/hadamard.hpp"
#include "tests/oracle/oracle.hpp"

namespace {

using namespace adamas;
using namespace cuda_emulation;
using oracle::RowKind;

const Kinds kKeyKinds{RowKind::kNormal, RowKind::kInteger, RowKind::kSpecial};
const Kinds kScoreKinds{RowKind::kNormal, RowKind::kInteger, RowKind::kSpecial, RowKind::kAllEqual};
const Kinds kAttentionKinds{RowKind::kNormal,
                            RowKind::kSpecial};  // ties and halves are nothing special to it

TEST_CASE("encode gives the oracle's codes, and export and import move them unchanged") {
  for_each_problem(kKeyKinds, [](Problem& problem) {
    const int dim = problem.spec.head_dim;
    problem.export_codes();
    std::uint64_t tokens = 0;
    for (int b = 0; b < problem.batch(); ++b) {
      const auto keys = problem.sequences[b].key_rows(problem.config, problem.call);
      const auto want = oracle::encode_keys(problem.config, keys, problem.thresholds.key);
      for (int p = 0; p < problem.lengths[b]; ++p, ++tokens) {
        const auto got = slice(problem.bytes, problem.slot(b, p), Problem::kKvHeads * dim);
        REQUIRE(std::ranges::equal(got, slice(want, p, Problem::kKvHeads * dim)));
      }
    }
    CHECK(tokens > 0);

    // Few blocks, which take several turns.
    const std::vector<unsigned char> before = problem.codes;
    std::ranges::fill(problem.codes, 0);
    problem.counters.tokens_encoded = 0;
    problem.processors = 1;
    problem.encode();
    CHECK(problem.codes == before);
    CHECK(problem.counters.tokens_encoded == tokens * Problem::kKvHeads);

    std::ranges::fill(problem.codes, 0xff);
    // Bits above the code are not part of it.
    for (unsigned char& byte : problem.bytes) {
      byte = static_cast<unsigned char>(byte + problem.spec.buckets);
    }
    problem.import_codes();
    CHECK(problem.codes == before);
  });
}

TEST_CASE("check finds the codes that are not those of their keys, and mends them on request") {
  for_each_problem(kKeyKinds, [](Problem& problem) {
    problem.encode_all();
    auto all = static_cast<std::uint64_t>(problem.slots() * Problem::kKvHeads);
    if (problem.spec.cache_form == codegen::CacheForm::pointers) {  // some pages have no memory
      const auto* const addresses = problem.args.page_addresses;
      all = static_cast<std::uint64_t>(problem.args.pages -
                                       std::count(addresses, addresses + problem.args.pages, 0)) *
            problem.args.page_tokens * Problem::kKvHeads;
    }
    const auto check = [&](bool mend, const std::set<std::size_t>& stale) {
      problem.counters = {};
      problem.check_codes(mend);
      std::set<std::size_t> found;
      for (std::size_t i = 0; i < problem.bytes.size(); ++i) {
        REQUIRE(problem.bytes[i] <= 1);
        if (problem.bytes[i] == 1) found.insert(i);
      }
      CHECK(found == stale);
      CHECK(problem.counters.tokens_checked == all);
      CHECK(problem.counters.tokens_stale == stale.size());
    };
    check(false, {});
    const std::vector<unsigned char> right = problem.codes;

    // One element of some token-heads of sequences, so that their pages have memory.
    problem.export_codes();
    std::set<std::size_t> changed;
    const auto dim = static_cast<std::size_t>(problem.spec.head_dim);
    for (int b = 0; b < problem.batch(); ++b) {
      for (int p = b; p < problem.lengths[b]; p += 7) {
        const std::size_t item = static_cast<std::size_t>(problem.slot(b, p)) * Problem::kKvHeads +
                                 static_cast<std::size_t>(p % 2);
        if (!changed.insert(item).second) continue;
        unsigned char& code = problem.bytes[item * dim + static_cast<std::size_t>(p) % dim];
        code = static_cast<unsigned char>((code + 1) % problem.spec.buckets);
      }
    }
    CHECK(changed.size() > 2);
    problem.import_codes();
    const std::vector<unsigned char> wrong = problem.codes;
    check(false, changed);
    CHECK(problem.codes == wrong);
    check(true, changed);
    CHECK(problem.codes == right);
    check(false, {});
  });
}

TEST_CASE("an element is not above a threshold that it equals, whatever the signs of zeros") {
  for (const int index : {0, 1, 5, 8}) {  // a word of a key in a lane, and one key after the other
    for (const float zero : {0.0f, -0.0f}) {
      CAPTURE(index);
      Problem problem(index, RowKind::kInteger, {70});
      std::ranges::fill(problem.thresholds.key, zero);
      problem.encode();
      problem.export_codes();
      const auto keys = problem.sequences[0].key_rows(problem.config, problem.call);
      const auto want = oracle::encode_keys(problem.config, keys, problem.thresholds.key);
      const int bytes = Problem::kKvHeads * problem.spec.head_dim;
      for (int p = 0; p < problem.lengths[0]; ++p) {
        REQUIRE(std::ranges::equal(slice(problem.bytes, problem.slot(0, p), bytes), slice(want, p, bytes)));
      }
    }
  }
}

TEST_CASE("thresholds that elements reach exactly, or miss by the last bit, divide them like any other") {
  for (const int index : {0, 5, 7, 8, 11}) {  // several norms; keys with a scale
    CAPTURE(index);
    Problem problem(index, RowKind::kNormal, {70});
    const auto keys = problem.sequences[0].key_rows(problem.config, problem.call);
    const int dim = problem.spec.head_dim, bounds = problem.spec.buckets - 1;
    for (int h = 0; h < Problem::kKvHeads; ++h) {
      std::vector<float> own(problem.thresholds.key.begin() + h * bounds,
                             problem.thresholds.key.begin() + (h + 1) * bounds);
      for (int t = 0; t < bounds; ++t) {
        const auto key = keys.at(3 * t, h);
        const auto rotated =
            oracle::hadamard(std::vector<float>(key.begin(), key.end()), problem.spec.hadamard);
        const float element = rotated[static_cast<std::size_t>(7 * t % dim)];
        own[t] = t % 3 == 0 ? element : std::nextafter(element, t % 3 == 1 ? 100.0f : -100.0f);
      }
      std::ranges::sort(own);
      std::ranges::copy(own, problem.thresholds.key.begin() + h * bounds);
    }
    problem.encode();
    problem.export_codes();
    const auto want = oracle::encode_keys(problem.config, keys, problem.thresholds.key);
    for (int p = 0; p < problem.lengths[0]; ++p) {
      REQUIRE(std::ranges::equal(slice(problem.bytes, problem.slot(0, p), Problem::kKvHeads * dim),
                                 slice(want, p, Problem::kKvHeads * dim)));
    }
  }
}

TEST_CASE(
    "encode by slot list skips padding, reports slots beyond the cache, and writes only what is listed") {
  Problem problem(0, RowKind::kNormal, {40});
  problem.encode_all();
  CHECK(problem.counters.tokens_encoded == static_cast<std::uint64_t>(problem.slots() * Problem::kKvHeads));
  const std::vector<unsigned char> all = problem.codes;
  std::ranges::fill(problem.codes, 0);
  problem.counters = {};
  const int outside = static_cast<int>(problem.slots());
  const std::vector<int> slots{3, -1, 17, outside, std::numeric_limits<int>::max(), -5, 18};
  problem.args.slots = slots.data();
  problem.args.count = static_cast<std::int64_t>(slots.size());
  const codegen::Shape shape{.kv_heads = Problem::kKvHeads, .slots = problem.args.count};
  launch(0, codegen::Stage::encode,
         codegen::cuda_generator().grid(codegen::Stage::encode, problem.spec, problem.tuning, shape),
         problem.args);
  CHECK(problem.counters.tokens_encoded == 3 * Problem::kKvHeads);
  CHECK(problem.counters.status == adamas_abi::kBadSlot);

  problem.args.slots = nullptr;
  problem.export_codes();
  const std::vector<unsigned char> got = problem.bytes;
  std::ranges::copy(all, problem.codes.begin());
  problem.export_codes();
  const std::set<int> written{3, 17, 18};
  for (int slot = 0; slot < outside; ++slot) {
    const auto want = slice(problem.bytes, slot, Problem::kKvHeads * problem.spec.head_dim);
    const auto found = slice(got, slot, Problem::kKvHeads * problem.spec.head_dim);
    if (written.contains(slot)) {
      CHECK(std::ranges::equal(found, want));
    } else {
      CHECK(std::ranges::all_of(found, [](unsigned char byte) { return byte == 0; }));
    }
  }
}

/// Runs select, once for positions and once for slots, and compares all it writes with the oracle.
void check_selection(Problem& problem) {
  problem.counters = {};
  problem.select(false);
  const int rows = problem.spec.query_rows, budget = problem.spec.budget;
  std::uint64_t answered = 0;
  for (int b = 0; b < problem.batch(); ++b) {
    CAPTURE(b);
    const Expected expected = expected_selection(problem, b);
    const std::int64_t tokens = problem.lengths[b];
    for (int row = 0; row < rows; ++row) {
      const int r = b * rows + row;
      const oracle::Range seen = oracle::visible(problem.config, problem.call, tokens, row);
      if (seen.size() > 0) answered += problem.query_heads();
      const auto integers = slice(problem.query_codes, r, problem.query_heads() * problem.spec.head_dim);
      REQUIRE(std::ranges::equal(integers,
                                 slice(expected.query, row, static_cast<std::int64_t>(integers.size()))));
      for (int s = 0; s < problem.selections(); ++s) {
        const std::int64_t list = static_cast<std::int64_t>(r) * problem.selections() + s;
        const std::int64_t local = static_cast<std::int64_t>(row) * problem.selections() + s;
        for (std::int64_t p = 0; p < problem.max_tokens; ++p) {
          const int score = problem.scores[list * problem.max_tokens + p];
          const bool visible = p >= seen.begin && p < seen.end;
          const std::int64_t want = p >= tokens ? -7  // left alone
                                    : visible   ? expected.scores[local * tokens + p]
                                                : std::numeric_limits<int>::min();
          REQUIRE(score == want);
        }
        const oracle::Selection& want = expected.selections[local];
        REQUIRE(problem.counts[list] == want.count);
        REQUIRE(problem.out_counts[list] == want.count);
        REQUIRE(std::ranges::equal(slice(problem.positions, list, budget), want.positions));
        REQUIRE(std::ranges::equal(slice(problem.out_positions, list, budget), want.positions));
      }
    }
  }
  CHECK(problem.counters.rows == answered);
  CHECK(problem.counters.status == 0);

  const std::vector<int> as_positions = problem.positions;
  problem.select(true);
  CHECK(problem.positions == as_positions);
  for (std::size_t i = 0; i < as_positions.size(); ++i) {
    const int b = static_cast<int>(i / (static_cast<std::size_t>(budget) * problem.selections() * rows));
    const std::int64_t want = as_positions[i] < 0 ? -1 : problem.slot(b, as_positions[i]);
    REQUIRE(problem.out_positions[i] == want);
  }
}

TEST_CASE("select gives the oracle's query integers, scores and positions") {
  for_each_problem(kScoreKinds, check_selection);
}

TEST_CASE("select lists tokens across warps and tiles of threads") {
  for (const int index : {1, 2, 3, 6}) {
    CAPTURE(std::string(kSpecs[index].spec));
    Problem problem(index, RowKind::kInteger, {1300, 300});
    problem.call.window = problem.args.window = 1250;
    problem.encode();
    check_selection(problem);
  }
}

TEST_CASE("select obeys a row's own budget, down to below the forced tokens") {
  Problem problem(0, RowKind::kInteger, {100, 100, 100, 100, 100});
  const std::vector<int> budgets{0, 2, 4, 1000, -3};
  problem.args.row_budgets = budgets.data();
  problem.encode();
  problem.select(false);
  for (int b = 0; b < problem.batch(); ++b) {
    problem.call.row_budget = {budgets[b]};
    const Expected expected = expected_selection(problem, b);
    for (int s = 0; s < problem.selections(); ++s) {
      const std::int64_t list = static_cast<std::int64_t>(b) * problem.selections() + s;
      CHECK(problem.counts[list] == expected.selections[s].count);
      CHECK(std::ranges::equal(slice(problem.positions, list, problem.spec.budget),
                               expected.selections[s].positions));
    }
  }
}

TEST_CASE("decode attends to the selection, and to everything in short rows") {
  for_each_problem(kAttentionKinds, [](Problem& problem) {
    for (const std::int64_t dense_below : {std::int64_t{problem.spec.budget}, std::int64_t{0}}) {
      CAPTURE(dense_below);
      problem.call.dense_below = dense_below;
      problem.counters = {};
      problem.decode_by_stages(dense_below);
      check_decode(problem);
    }
  });
}

TEST_CASE("dense attends to everything") {
  for_each_problem(kAttentionKinds, [](Problem& problem) {
    problem.counters = {};
    problem.lse.assign(static_cast<std::size_t>(problem.rows()) * problem.query_heads(), 77.0f);
    problem.args.lse = problem.lse.data();
    problem.dense();
    check_outputs(problem, [&](int b) {
      const auto& sequence = problem.sequences[b];
      return oracle::dense(problem.config, problem.call, sequence.query_rows(problem.config, problem.call),
                           sequence.key_rows(problem.config, problem.call),
                           sequence.value_rows(problem.config, problem.call));
    });
    CHECK(problem.counters.dense_requested == problem.counters.rows);
    CHECK(problem.counters.dense_short == 0);
  });
}

TEST_CASE("attend skips positions that a row does not see") {
  Problem problem(0, RowKind::kNormal, {60, 60, 0});
  const int budget = problem.spec.budget;
  std::vector<oracle::Selection> lists;
  for (int list = 0; list < problem.rows() * problem.selections(); ++list) {
    // Every third entry is nonsense; the second sequence has nothing else.
    oracle::Selection good;
    for (int i = 0; i < budget; ++i) {
      const bool bad = i % 3 == 0 || list >= problem.selections();
      const int nonsense[] = {-1, 60, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()};
      const int position = bad ? nonsense[i % 4] : (i * 7 + list) % 60;
      problem.positions[static_cast<std::size_t>(list * budget + i)] = position;
      if (!bad) good.positions.push_back(position);
    }
    good.count = static_cast<int32_t>(good.positions.size());
    problem.counts[static_cast<std::size_t>(list)] = 1000;  // clamped to the budget
    lists.push_back(good);
  }
  problem.lse.assign(static_cast<std::size_t>(problem.rows()) * problem.query_heads(), 77.0f);
  problem.args.lse = problem.lse.data();
  problem.attend();
  CHECK(problem.counters.status == adamas_abi::kBadPosition);
  check_outputs(problem, [&](int b) {
    const auto& sequence = problem.sequences[b];
    const std::vector<oracle::Selection> own(lists.begin() + b * problem.selections(),
                                             lists.begin() + (b + 1) * problem.selections());
    return oracle::attend_all(problem.config, problem.call, sequence.query_rows(problem.config, problem.call),
                              sequence.key_rows(problem.config, problem.call),
                              sequence.value_rows(problem.config, problem.call), own);
  });
}

TEST_CASE("lengths, starts and tables out of range are clamped and reported, never followed") {
  for (const int index : {0, 2}) {  // block table, contiguous
    Problem problem(index, RowKind::kNormal, {50, 50, 50});
    CAPTURE(std::string(kSpecs[index].spec));
    problem.encode();
    problem.counters = {};
    const std::vector<int> lengths{std::numeric_limits<int>::max(), -4, 50};
    const std::vector<int> starts{std::numeric_limits<int>::max(), 0, std::numeric_limits<int>::min()};
    const std::vector<int> table(static_cast<std::size_t>(problem.args.pages),
                                 std::numeric_limits<int>::min());
    problem.args.lengths = lengths.data();
    problem.args.starts = starts.data();
    problem.args.table = table.data();
    problem.decode_by_stages(problem.spec.budget);
    CHECK(problem.counters.status == (adamas_abi::kLengthClamped | adamas_abi::kBadTable));
    CHECK(problem.counters.clamped_rows == 2u * problem.spec.query_rows * problem.query_heads());
    problem.dense();
    for (int row = 0; row < problem.spec.query_rows; ++row) {
      const auto inert = problem.out(problem.spec.query_rows + row, 0);  // the second sequence
      CHECK(std::ranges::all_of(inert, [](double value) { return value == 0; }));
    }
  }
}

TEST_CASE("a row's bits depend on its own tokens only") {
  for (int index = 0; index < static_cast<int>(std::size(kSpecs)); ++index) {
    CAPTURE(std::string(kSpecs[index].spec));
    // The same first sequence, once alone and once among others that widen every grid.
    Problem alone(index, RowKind::kNormal, {90}), among(index, RowKind::kNormal, {90, 220, 3});
    for (Problem* problem : {&alone, &among}) {
      problem->encode();
      problem->decode_by_stages(problem->spec.budget);
    }
    for (int row = 0; row < alone.spec.query_rows; ++row) {
      for (int head = 0; head < alone.query_heads(); ++head) {
        REQUIRE(alone.out(row, head) == among.out(row, head));
      }
    }
  }
}

}  // namespace
