// Schedules that this GPU would not choose by itself: the stages of GPUs without clusters or binary tensor
// cores, and clusters of every size. They pass what the default passes, and give the same bits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <string>

#include "tests/dispatch/forced_tuning.hpp"
#include "tests/dispatch/guarantees.hpp"
#include "tests/dispatch/scenario.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

constexpr const char* kStages = "schedule=stages";

void check_fixed_scenarios_with(const std::string& tuning, int part) {
  const ForcedTuning forced(tuning);
  check_fixed_scenarios(Context("cuda:0"), part);
}

void check_random_scenarios(const std::string& tuning) {
  const ForcedTuning forced(tuning);
  const Context context("cuda:0");
  for (std::uint64_t seed = 1; seed <= 24; ++seed)
    check_scenario(context, random_scenario(seed));
}

void check_guarantees(const std::string& tuning) {
  INFO(tuning);
  const ForcedTuning forced(tuning);
  const Context context("cuda:0");
  check_old_callers(context);
  check_inert_rows(context);
  check_wild_lengths(context);
  check_wild_tables(context);
  check_wild_slots(context);
  check_wild_positions(context);
  check_wild_budgets(context);
  check_wild_numbers(context);
  check_rows_are_independent(context);
  check_counters(context);
  check_appending(context);
  check_codes_travel(context);
}

}  // namespace

TEST_CASE_TEMPLATE("cuda: fixed scenarios in stages", Part, ScenarioPart<0>, ScenarioPart<1>, ScenarioPart<2>,
                   ScenarioPart<3>) {
  check_fixed_scenarios_with(kStages, Part::kIndex);
}
TEST_CASE("cuda: random scenarios in stages") { check_random_scenarios(kStages); }
TEST_CASE("cuda: guarantees in stages") { check_guarantees(kStages); }

TEST_CASE_TEMPLATE("cuda: fixed scenarios in blocks of their own", Part, ScenarioPart<0>, ScenarioPart<1>,
                   ScenarioPart<2>, ScenarioPart<3>) {
  check_fixed_scenarios_with("cluster=1", Part::kIndex);
}
TEST_CASE_TEMPLATE("cuda: fixed scenarios in clusters of 3, of small blocks", Part, ScenarioPart<0>,
                   ScenarioPart<1>, ScenarioPart<2>, ScenarioPart<3>) {
  check_fixed_scenarios_with("cluster=3 decode_threads=128", Part::kIndex);
}
// What later architectures need, where multiplications of bits are emulated.
TEST_CASE_TEMPLATE("cuda: fixed scenarios with columns of bytes", Part, ScenarioPart<0>, ScenarioPart<1>,
                   ScenarioPart<2>, ScenarioPart<3>) {
  check_fixed_scenarios_with("scan=bytes", Part::kIndex);
}
TEST_CASE("cuda: random scenarios in clusters of 8") { check_random_scenarios("cluster=8"); }
TEST_CASE("cuda: guarantees in clusters of any size") {
  for (const char* tuning : {"cluster=1", "cluster=2", "cluster=3", "cluster=4", "cluster=8"})
    check_guarantees(tuning);
}

TEST_CASE("cuda: every schedule gives the same bits") {
  const Context context("cuda:0");
  // A cluster has all lists of a K/V head, or those of a third of its query heads.
  for (const std::string group : {"4", "12"}) {
    CAPTURE(group);
    const SmallShape shape{.spec = "head_dim=128 budget=64 page_size=16 group=" + group,
                           .sequences = {{1, 3000}, {2, 700}, {3, 65}, {4, 0}, {5, 1531}},
                           .dense_below = 80};
    const auto decode = [&](const std::string& tuning) {
      const ForcedTuning forced(tuning);
      const SmallProblem problem(context, shape);
      problem.encode();
      return problem.decode();
    };
    const Attended want = decode("");
    for (const char* tuning : {kStages, "cluster=1", "cluster=2", "cluster=3", "cluster=4", "cluster=8",
                               "decode_threads=128", "scan=bytes"}) {
      INFO(tuning);
      const Attended found = decode(tuning);
      CHECK(found.out == want.out);
      CHECK(found.lse == want.lse);
      CHECK(found.counters.tokens_scanned == want.counters.tokens_scanned);
      CHECK(found.counters.tokens_attended == want.counters.tokens_attended);
    }
  }
}

TEST_CASE("cuda: room for long rows changes no bits") {
  const Context context("cuda:0");
  for (const std::string group : {"4", "7", "16"}) {
    CAPTURE(group);
    SmallShape shape{.spec = "head_dim=16 budget=40 page_size=64 group=" + group,
                     .sequences = {{1, 5000}, {2, 333}},
                     .kv_heads = 1,
                     .dense_below = 400};
    const auto decode = [&] {
      const SmallProblem problem(context, shape);
      problem.encode();
      return problem.decode();
    };
    const Attended want = decode();
    shape.max_tokens = 300'000;  // decode_long
    const Attended found = decode();
    CHECK(found.out == want.out);
    CHECK(found.lse == want.lse);
    CHECK(found.counters.tokens_scanned == want.counters.tokens_scanned);
  }
}

TEST_CASE("cuda: of many rows, each is what it is alone") {
  const Context context("cuda:0");
  for (const std::string spec :
       {"head_dim=128 budget=64 page_size=16", "head_dim=64 budget=300 group=2", "group=4 budget=40"}) {
    INFO(spec);
    // More than a GPU has multiprocessors: two blocks share each, where they have few lists.
    constexpr int kSequences = 150, kEvery = 29;
    SmallShape many{.spec = spec, .dense_below = 80};
    many.sequences.clear();
    for (int i = 0; i < kSequences; ++i)
      many.sequences.push_back({i, i * 137 % 1400});
    const auto decode = [&](const SmallShape& shape) {
      const SmallProblem problem(context, shape);
      problem.encode();
      return problem.decode();
    };
    const Attended whole = decode(many);
    for (int i = 0; i < kSequences; i += kEvery) {
      INFO("sequence ", i);
      SmallShape alone = many;
      alone.sequences = {many.sequences[static_cast<std::size_t>(i)]};
      alone.max_tokens = 1400;
      const Attended want = decode(alone);
      const auto same = [&](const auto& all, const auto& part) {
        return std::equal(part.begin(), part.end(),
                          all.begin() + static_cast<std::ptrdiff_t>(i * part.size()));
      };
      CHECK(same(whole.out, want.out));
      CHECK(same(whole.lse, want.lse));
    }
  }
}

}  // namespace adamas::tests
