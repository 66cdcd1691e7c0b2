// The scenarios that every device must pass: a fixed list over the forms and odd shapes, and random ones.
#include <algorithm>

#include "codegen/format.hpp"
#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

using oracle::RowKind;

std::vector<Scenario> fixed_scenarios() {
  const std::vector<int> budget_edges{0, 1, 15, 16, 17, 100};  // around budget=16, and a padded row
  std::vector<Scenario> list;
  const auto add = [&list](Scenario scenario) {
    scenario.seed = list.size() + 1;
    list.push_back(std::move(scenario));
  };

  // Defaults, on both estimators.
  add({.spec = "", .lengths = {300, 0, 129, 1}});
  add({.spec = "estimator=manhattan", .lengths = {300, 0, 129, 1}});
  // Lengths around the budget; everything ties; integer rows where halves are common; a query of zeros.
  for (const char* estimator : {"dot", "manhattan"}) {
    for (const RowKind kind : {RowKind::kNormal, RowKind::kInteger, RowKind::kAllEqual, RowKind::kZero}) {
      add({.spec = fmt::format("head_dim=64 budget=16 group=3 estimator={} sink=2 recent=3", estimator),
           .lengths = budget_edges,
           .kind = kind});
    }
  }
  // NaN and infinity in keys and queries.
  add({.spec = "head_dim=64 budget=16 group=2", .lengths = {70, 40}, .kind = RowKind::kSpecial});
  add({.spec = "head_dim=64 budget=16 group=2 estimator=manhattan",
       .lengths = {70, 40},
       .kind = RowKind::kSpecial});
  // Every order of Hadamard matrix, block-diagonal too; value_dim of its own.
  add({.spec = "head_dim=80 group=5 budget=32", .lengths = {200, 33}, .kind = RowKind::kInteger});
  add({.spec = "head_dim=96 group=5 budget=32 value_dim=64",
       .lengths = {200, 31},
       .kind = RowKind::kInteger});
  add({.spec = "head_dim=112 group=7 budget=32", .lengths = {150, 90}, .kind = RowKind::kInteger});
  add({.spec = "head_dim=192 value_dim=128 group=2 budget=32", .lengths = {150}, .kind = RowKind::kInteger});
  add({.spec = "head_dim=256 group=2 budget=64", .lengths = {180, 64}});
  add({.spec = "head_dim=512 group=1 budget=8", .lengths = {60}, .kv_heads = 1});
  add({.spec = "head_dim=16 group=2 budget=8", .lengths = {60, 9}});
  add({.spec = "head_dim=128 hadamard=32 budget=32", .lengths = {120}, .kind = RowKind::kInteger});
  add({.spec = "head_dim=240 hadamard=12 budget=32", .lengths = {90}, .kind = RowKind::kInteger});
  add({.spec = "head_dim=144 hadamard=1 budget=32", .lengths = {90}});
  // Buckets and query bits up to the widest scores.
  for (const int buckets : {2, 8, 16}) {
    for (const char* estimator : {"dot query_bits=8", "dot query_bits=3", "manhattan"}) {
      add({.spec = fmt::format("head_dim=64 buckets={} estimator={} budget=24 group=2", buckets, estimator),
           .lengths = {150, 24},
           .kind = buckets == 8 ? RowKind::kInteger : RowKind::kNormal});
    }
  }
  add({.spec = "head_dim=256 buckets=16 query_bits=8 budget=24 group=2", .lengths = {100}, .kv_heads = 1});
  // Types.
  add({.spec = "head_dim=64 kv_type=bf16 budget=16 group=4", .lengths = {90, 20}});
  add({.spec = "head_dim=64 kv_type=bf16 q_type=f32 out_type=f16 budget=16", .lengths = {90, 20}});
  add({.spec = "head_dim=64 kv_type=f16 q_type=bf16 out_type=f32 budget=16", .lengths = {90, 20}});
  // 8-bit floats.
  for (const char* spec :
       {"budget=16 group=4", "head_dim=80 value_dim=48 budget=16 group=3 estimator=manhattan page_size=7",
        "head_dim=64 budget=24 group=6 scope=kv_head cache_form=contiguous q_type=f16",
        "head_dim=96 budget=16 query_rows=2 cache_form=pointers page_size=32 tables=split out_type=f32",
        "head_dim=256 value_dim=64 budget=16 group=9 buckets=16 cache_form=slots"}) {
    for (const RowKind kind : {RowKind::kNormal, RowKind::kInteger, RowKind::kSpecial}) {
      add({.spec = fmt::format("kv_type=f8e4m3fn {}", spec),
           .lengths = {150, 0, 33},
           .kind = kind,
           .layout = kind == RowKind::kNormal ? HostLayout::interleaved : HostLayout::token_major,
           .bulk = kind == RowKind::kNormal,
           .scale_per_head = kind != RowKind::kNormal,
           .dense_below = kind == RowKind::kInteger ? 40 : 0});
    }
  }
  // Pages of every kind, layouts, starts.
  for (const int page : {1, 3, 16, 48, 64, 1024}) {
    add({.spec = fmt::format("head_dim=64 page_size={} budget=16 group=2", page),
         .lengths = {100, 7},
         .layout = page == 48   ? HostLayout::head_major
                   : page == 64 ? HostLayout::interleaved
                                : HostLayout::token_major,
         .starts = page % 16 != 0});
  }
  add({.spec = "head_dim=64 cache_form=contiguous budget=16 group=2", .lengths = {100, 0, 65}, .bulk = true});
  add({.spec = "head_dim=64 cache_form=contiguous budget=16",
       .lengths = {100, 65},
       .layout = HostLayout::head_major,
       .starts = true});
  add({.spec = "head_dim=96 cache_form=contiguous budget=16 group=3",
       .lengths = {100, 1, 70},
       .packed = true});
  // Other tables.
  for (const char* form :
       {"slots", "csr page_size=1", "csr page_size=7", "csr page_size=48",
        "block_table page_size=5 tables=split", "slots tables=split", "csr page_size=32 tables=split",
        "pointers page_size=6", "pointers page_size=64", "pointers page_size=16 tables=split"}) {
    add({.spec = fmt::format("head_dim=64 cache_form={} budget=16 group=2", form),
         .lengths = {100, 0, 7, 1},
         .starts = list.size() % 2 == 0});
    add({.spec = fmt::format("head_dim=80 value_dim=48 cache_form={} budget=20 group=3 query_rows=2 "
                             "estimator=manhattan scope=kv_head",
                             form),
         .lengths = {0, 70, 333},
         .layout = HostLayout::head_major,
         .bulk = true,
         .dense_below = 30});
  }
  add({.spec = "cache_form=csr page_size=64 group=4 kv_type=bf16",
       .lengths = {700, 64, 0},
       .layout = HostLayout::interleaved,
       .starts = true});
  add({.spec = "cache_form=pointers page_size=64 group=4 kv_type=bf16",
       .lengths = {700, 64, 0},
       .layout = HostLayout::interleaved,
       .starts = true});
  add({.spec = "page_size=16 group=4 tables=split scope=kv_head window=on",
       .lengths = {700, 64, 0},
       .layout = HostLayout::interleaved,
       .dense_below = -1,
       .window = 300});
  // Forms.
  add({.spec = "head_dim=64 budget=16 group=6 scope=kv_head", .lengths = {120, 16}});
  add({.spec = "head_dim=64 budget=16 group=6 scope=kv_head estimator=manhattan", .lengths = {120, 16}});
  add({.spec = "head_dim=64 budget=16 query_rows=4 group=2", .lengths = {120, 3, 0, 18}});
  add({.spec = "head_dim=64 budget=16 query_rows=8 window=on sink=4", .lengths = {120, 40}, .window = 33});
  add({.spec = "head_dim=64 budget=16 soft_cap=on sink_logits=on group=2",
       .lengths = {120, 0},
       .soft_cap = 2.5F});
  add({.spec = "head_dim=64 budget=16 lse=off", .lengths = {50}});
  add({.spec = "head_dim=64 budget=16 sink=3 recent=5 group=2",
       .lengths = {90, 30, 12},
       .row_budgets = true});
  add({.spec = "head_dim=64 budget=16 group=2", .lengths = {90, 30, 12, 16}, .dense_below = -1});
  add({.spec = "head_dim=64 budget=16 group=2", .lengths = {90, 30, 12}, .dense_below = 50});
  add({.spec = "head_dim=64 budget=1 group=2", .lengths = {90, 1}});
  add({.spec = "head_dim=64 budget=4096 group=1", .lengths = {5000, 4096, 4097}, .kv_heads = 1});
  add({.spec = "head_dim=64 budget=128 group=32", .lengths = {700}, .kv_heads = 1});
  add({.spec = "head_dim=128 budget=128 group=12", .lengths = {5000, 2300}, .kv_heads = 1});
  return list;
}

void check_fixed_scenarios(const Context& context, int part) {
  const std::vector<Scenario> scenarios = fixed_scenarios();
  for (std::size_t i = static_cast<std::size_t>(part); i < scenarios.size(); i += kScenarioParts)
    check_scenario(context, scenarios[i]);
}

Scenario random_scenario(std::uint64_t seed) {
  oracle::Random random(seed * 977 + 13);
  const auto pick = [&random](auto list) {
    return *(list.begin() + random.integer(0, static_cast<std::int64_t>(list.size()) - 1));
  };
  const auto chance = [&random](int percent) { return random.integer(1, 100) <= percent; };
  using Ints = std::initializer_list<int>;
  using Texts = std::initializer_list<const char*>;

  Scenario scenario;
  scenario.seed = seed;
  const int head_dim = pick(Ints{16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256});
  const int budget = static_cast<int>(random.integer(1, 80));
  const int recent = static_cast<int>(random.integer(1, std::min(budget, 6)));
  const int sink = static_cast<int>(random.integer(0, std::min(budget - recent, 5)));
  const bool manhattan = chance(40);
  const std::string form = pick(Texts{"contiguous", "contiguous", "block_table", "block_table", "block_table",
                                      "csr", "slots", "pointers"});
  const bool contiguous = form == "contiguous";
  const bool window = chance(20), soft_cap = chance(20);
  std::string spec =
      fmt::format("head_dim={} buckets={} budget={} sink={} recent={} group={} scope={}", head_dim,
                  pick(Ints{2, 4, 4, 4, 8, 16}), budget, sink, recent,
                  pick(Ints{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16}), pick(Texts{"query_head", "kv_head"}));
  if (chance(25)) spec += fmt::format(" value_dim={}", pick(Ints{16, 64, 80, 128}));
  spec += manhattan ? " estimator=manhattan" : fmt::format(" query_bits={}", random.integer(3, 8));
  spec += fmt::format(" query_rows={}", pick(Ints{1, 1, 1, 2, 5, 8}));
  spec +=
      fmt::format(" kv_type={} q_type={} out_type={}", pick(Texts{"f16", "f16", "bf16", "bf16", "f8e4m3fn"}),
                  pick(Texts{"f16", "bf16", "f32"}), pick(Texts{"f16", "bf16", "f32"}));
  spec += " cache_form=" + form;
  if (form != "contiguous" && form != "slots") {
    spec += fmt::format(" page_size={}", pick(Ints{1, 2, 5, 16, 32, 48, 64, 128}));
  }
  if (!contiguous && chance(25)) spec += " tables=split";
  if (window) spec += " window=on";
  if (soft_cap) spec += " soft_cap=on";
  if (chance(20)) spec += " sink_logits=on";
  scenario.spec = spec;

  const auto sequences = random.integer(1, 4);
  for (int i = 0; i < sequences; ++i) {
    scenario.lengths.push_back(static_cast<int>(chance(15) ? random.integer(0, 3) : random.integer(1, 400)));
  }
  scenario.kv_heads = static_cast<int>(random.integer(1, 3));
  scenario.kind =
      pick(std::initializer_list<RowKind>{RowKind::kNormal, RowKind::kNormal, RowKind::kInteger,
                                          RowKind::kInteger, RowKind::kAllEqual, RowKind::kSpecial});
  scenario.layout = pick(std::initializer_list<HostLayout>{HostLayout::token_major, HostLayout::head_major,
                                                           HostLayout::interleaved});
  scenario.packed = contiguous && chance(50);
  scenario.starts = !scenario.packed && chance(40);
  scenario.row_budgets = chance(30);
  scenario.bulk = chance(20);
  scenario.scale_per_head = chance(50);
  scenario.dense_below = pick(std::initializer_list<std::int64_t>{0, 0, -1, 37, 1000});
  scenario.window = window ? static_cast<int>(random.integer(1, 200)) : 0;
  scenario.soft_cap = soft_cap ? static_cast<float>(random.integer(1, 60)) / 4 : 0;
  return scenario;
}

}  // namespace adamas::tests
