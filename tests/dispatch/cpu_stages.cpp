// Each stage's results against the oracle, on a scene of stage_scene.hpp. See cpu_stages.hpp.
#include "tests/dispatch/cpu_stages.hpp"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "codegen/cpu_layout.hpp"
#include "codegen/format.hpp"
#include "tests/dispatch/stage_scene.hpp"

namespace adamas::tests {

using adamas_abi::Args;
using codegen::Stage;

void StageScene::check_codes() {
  const codegen::CodeStrides strides = generator_.code_strides(spec_, case_.kv_heads, page_tokens_);
  Guarded* const codes = keep(static_cast<std::size_t>(pages_ * strides.page));
  args_.codes = codes->as<unsigned char>();
  args_.code_page_stride = strides.page;
  args_.code_head_stride = strides.head;

  std::vector<int> slots;
  for (int b = 0; b < batch_; ++b) {
    for (std::int64_t p = 0; p < case_.lengths[b]; ++p)
      slots.push_back(static_cast<int>(slot(b, p)));
  }
  const auto tokens = static_cast<std::uint64_t>(slots.size());
  for (int i = 0; i < 5; ++i) {  // padding between tokens
    slots.insert(slots.begin() + random_.integer(0, static_cast<std::int64_t>(slots.size())), -1);
  }
  const std::int64_t all = pages_ * page_tokens_;
  args_.slots = case_.bulk ? nullptr : keep(guarded(slots))->as<int>();
  args_.count = case_.bulk ? all : static_cast<std::int64_t>(slots.size());
  shape_.slots = args_.count;
  run(Stage::encode);
  CHECK(args_.counters->status == 0);
  CHECK(args_.counters->tokens_encoded ==
        (case_.bulk ? static_cast<std::uint64_t>(all) : tokens) * case_.kv_heads);

  // Out to canonical bytes, into a wiped buffer, and out again: all must agree.
  args_.slots = nullptr;
  args_.count = shape_.slots = all;
  for (int round = 0; round < 2; ++round) {
    Guarded* const bytes = keep(static_cast<std::size_t>(all) * case_.kv_heads * spec_.head_dim);
    args_.bytes = bytes->as<unsigned char>();
    run(Stage::export_codes);
    std::int64_t different = 0;
    for (int b = 0; b < batch_; ++b) {
      for (std::int64_t p = 0; p < case_.lengths[b]; ++p) {
        const std::int64_t per_token = std::int64_t{case_.kv_heads} * spec_.head_dim;
        different += std::memcmp(bytes->as<unsigned char>() + slot(b, p) * per_token,
                                 codes_[b].data() + p * per_token, static_cast<std::size_t>(per_token)) != 0;
      }
    }
    CHECK(different == 0);
    if (round == 1) break;
    std::memset(codes->as<void>(), 0x5a, codes->size());
    run(Stage::import_codes);
  }
}

void StageScene::check_selection() {
  const std::int64_t stride = generator_.score_stride(spec_, tuning_, max_tokens_);
  const auto row_selections = static_cast<std::size_t>(rows_) * selections_;
  args_.prepared = keep(static_cast<std::size_t>(rows_) * heads_ * generator_.prepared_query_bytes(spec_))
                       ->as<unsigned char>();
  args_.keys_of_scores = keep(row_selections * stride * facts_.key_bytes)->as<unsigned char>();
  args_.score_stride = stride;
  args_.positions = keep(row_selections * spec_.budget * sizeof(int))->as<int>();
  args_.counts = keep(row_selections * sizeof(int))->as<int>();
  args_.out_positions = keep(row_selections * spec_.budget * sizeof(int))->as<int>();
  args_.out_counts = keep(row_selections * sizeof(int))->as<int>();
  args_.out_scores = keep(row_selections * max_tokens_ * sizeof(int))->as<int>();
  args_.query_codes = keep(static_cast<std::size_t>(rows_) * heads_ * spec_.head_dim)->as<signed char>();
  args_.write_slots = 1;
  run(Stage::prepare_query);
  run(Stage::scan);
  run(Stage::select);
  CHECK(args_.counters->status == 0);

  std::uint64_t scanned = 0, answered = 0;
  std::int64_t wrong_integers = 0, wrong_scores = 0, wrong_selections = 0, wrong_slots = 0;
  for (int b = 0; b < batch_; ++b) {
    const oracle::Rows<float> queries = problems_[b].query_rows(config_, calls_[b]);
    const std::vector<std::int32_t> integers =
        oracle::encode_queries(config_, queries, problems_[0].thresholds.query);
    const std::int64_t first_integer = std::int64_t{b} * spec_.query_rows * heads_ * spec_.head_dim;
    for (std::size_t i = 0; i < integers.size(); ++i) {
      wrong_integers += args_.query_codes[first_integer + static_cast<std::int64_t>(i)] != integers[i];
    }
    const std::vector<std::int64_t> scores =
        oracle::scores(config_, calls_[b], oracle::Rows<std::int32_t>(integers, heads_, spec_.head_dim),
                       oracle::Rows<std::uint8_t>(codes_[b], case_.kv_heads, spec_.head_dim));
    const std::vector<oracle::Selection> want =
        oracle::select_all(config_, calls_[b], case_.lengths[b], scores);
    for (int r = 0; r < spec_.query_rows; ++r) {
      const oracle::Range seen = oracle::visible(config_, calls_[b], case_.lengths[b], r);
      scanned += static_cast<std::uint64_t>(seen.size()) * case_.kv_heads;
      answered += seen.size() > 0 ? heads_ : 0;
      for (int s = 0; s < selections_; ++s) {
        const std::size_t local = static_cast<std::size_t>(r) * selections_ + s;
        const std::size_t number = static_cast<std::size_t>(b) * spec_.query_rows * selections_ + local;
        for (std::int64_t p = 0; p < case_.lengths[b]; ++p) {
          const bool is_seen = p >= seen.begin && p < seen.end;
          const std::int64_t score = is_seen ? scores[local * case_.lengths[b] + p] : std::int64_t{INT32_MIN};
          wrong_scores += args_.out_scores[number * max_tokens_ + p] != score;
        }
        wrong_selections +=
            args_.counts[number] != want[local].count || args_.out_counts[number] != want[local].count;
        for (int i = 0; i < spec_.budget; ++i) {
          const int position = want[local].positions[i];
          wrong_selections += args_.positions[number * spec_.budget + i] != position;
          wrong_slots +=
              args_.out_positions[number * spec_.budget + i] != (position < 0 ? -1 : slot(b, position));
        }
      }
    }
  }
  CHECK(wrong_integers == 0);
  CHECK(wrong_scores == 0);
  CHECK(wrong_selections == 0);
  CHECK(wrong_slots == 0);
  CHECK(args_.counters->tokens_scanned == scanned);
  CHECK(args_.counters->rows == answered);
  check_kept_keys();
}

// A host that wants no scores lets the scan keep candidates alone. Whatever key they must reach, the
// selection is the one that all scores give: as guessed; so low that all are candidates, or too many for a
// tile; so high that select has to score again.
void StageScene::check_kept_keys() {
  const std::size_t lists = static_cast<std::size_t>(rows_) * selections_;
  const std::vector<int> positions(args_.positions, args_.positions + lists * spec_.budget);
  const std::vector<int> counts(args_.counts, args_.counts + lists);
  args_.out_scores = nullptr;
  for (const int least : {-1, 1, facts_.key_limit}) {
    run(Stage::prepare_query);
    for (std::int64_t query = 0; query < std::int64_t{rows_} * heads_ && least >= 0; ++query) {
      unsigned char* const rule = args_.prepared + query * generator_.prepared_query_bytes(spec_);
      std::memcpy(rule + sizeof(std::int32_t), &least, static_cast<std::size_t>(facts_.key_bytes));
    }
    run(Stage::scan);
    run(Stage::select);
    CHECK(std::equal(positions.begin(), positions.end(), args_.positions));
    CHECK(std::equal(counts.begin(), counts.end(), args_.counts));
  }
}

void StageScene::check_rows(const std::vector<oracle::Output>& want, const char* what) {
  const double tolerance =
      oracle::tolerance(config_.out_type == oracle::Format::kF32 ? config_.kv_type : config_.out_type);
  double worst = 0, worst_lse = 0;
  std::int64_t not_inert = 0;
  for (int row = 0; row < rows_; ++row) {
    const int b = row / spec_.query_rows, r = row % spec_.query_rows;
    const bool inert = case_.lengths[b] - spec_.query_rows + r < 0;
    for (int h = 0; h < heads_; ++h) {
      std::vector<double> got, expected;
      for (int e = 0; e < spec_.value_dim; ++e) {
        got.push_back(
            get(config_.out_type, args_.out, row * args_.out_row_stride + h * args_.out_head_stride + e));
        expected.push_back(want[b].out[(static_cast<std::size_t>(r) * heads_ + h) * spec_.value_dim + e]);
      }
      const double lse = args_.lse[row * heads_ + h],
                   want_lse = want[b].lse[static_cast<std::size_t>(r) * heads_ + h];
      if (inert || std::isinf(want_lse)) {
        not_inert += !(std::isinf(lse) && lse < 0) ||
                     std::any_of(got.begin(), got.end(), [](double v) { return v != 0; });
        continue;
      }
      const bool finite = std::isfinite(want_lse) && std::all_of(expected.begin(), expected.end(),
                                                                 [](double v) { return std::isfinite(v); });
      if (!finite)
        continue;  // a row that attends to NaN or infinity may answer anything; others may not notice
      const double error = oracle::relative_l2(got, expected);
      worst = error <= worst ? worst : error;  // a NaN stays
      const double lse_error = std::abs(lse - want_lse) / std::max(1.0, std::abs(want_lse));
      worst_lse = lse_error <= worst_lse ? worst_lse : lse_error;
    }
  }
  INFO(what);
  CHECK(not_inert == 0);
  CHECK(worst <= tolerance);
  CHECK(worst_lse <= 1e-5);
}

void StageScene::run_attention(std::int64_t chunks, bool backwards) {
  args_.chunks = shape_.chunks = static_cast<int>(chunks);
  args_.partial =
      keep(static_cast<std::size_t>(rows_) * heads_ * chunks * (spec_.value_dim + 2) * sizeof(float))
          ->as<float>();
  run(Stage::attend, backwards);
  run(Stage::merge, backwards);
}

std::int64_t StageScene::decode_chunks() const {
  const auto ceil_div = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  return std::max(ceil_div(spec_.budget, tuning_.chunk), ceil_div(case_.dense_below, tuning_.dense_chunk));
}

/// Outputs and log-sum-exps of the first rows of the call.
std::vector<unsigned char> StageScene::output_bytes(int rows) const {
  const std::size_t outputs =
      static_cast<std::size_t>(rows * args_.out_row_stride) * bytes_of(config_.out_type);
  const std::size_t sums = static_cast<std::size_t>(rows) * heads_ * sizeof(float);
  std::vector<unsigned char> bytes(outputs + sums);
  std::memcpy(bytes.data(), args_.out, outputs);
  std::memcpy(bytes.data() + outputs, args_.lse, sums);
  return bytes;
}

void StageScene::check_attention() {
  args_.out_head_stride = row_stride(spec_.value_dim);
  args_.out_row_stride = heads_ * args_.out_head_stride;
  args_.out =
      keep(static_cast<std::size_t>(rows_ * args_.out_row_stride) * bytes_of(config_.out_type))->as<void>();
  args_.lse = keep(static_cast<std::size_t>(rows_) * heads_ * sizeof(float))->as<float>();

  std::vector<oracle::Output> sparse, dense;
  std::uint64_t attended = 0, answered = 0, short_rows = 0;
  for (int b = 0; b < batch_; ++b) {
    const auto queries = problems_[b].query_rows(config_, calls_[b]);
    const auto keys = problems_[b].key_rows(config_, calls_[b]);
    const auto values = problems_[b].value_rows(config_, calls_[b]);
    const oracle::Rows<std::uint8_t> codes(codes_[b], case_.kv_heads, spec_.head_dim);
    sparse.push_back(
        oracle::decode(config_, calls_[b], queries, keys, values, codes, problems_[0].thresholds));
    dense.push_back(oracle::dense(config_, calls_[b], queries, keys, values));
    for (int r = 0; r < spec_.query_rows; ++r) {
      const std::int64_t seen = oracle::visible(config_, calls_[b], case_.lengths[b], r).size();
      attended += static_cast<std::uint64_t>(seen * heads_);
      answered += seen > 0 ? heads_ : 0;
      short_rows += seen > 0 && seen <= case_.dense_below ? heads_ : 0;
    }
  }

  const adamas_abi::Counters& counters = *args_.counters;
  args_.counters->rows = 0;
  run_attention(decode_chunks());
  check_rows(sparse, "decode");
  const std::uint64_t attended_sparse = counters.tokens_attended;
  CHECK(attended_sparse <= attended);
  CHECK(counters.rows == answered);
  CHECK(counters.dense_short == short_rows);
  CHECK(counters.dense_requested == 0);

  const std::vector<unsigned char> bytes = output_bytes(rows_);
  run_attention(decode_chunks() + 3, true);
  CHECK(output_bytes(rows_) == bytes);

  const std::uint64_t before_dense = counters.tokens_attended;
  args_.all_tokens = 1;
  run_attention((max_tokens_ + tuning_.dense_chunk - 1) / tuning_.dense_chunk);
  args_.all_tokens = 0;
  check_rows(dense, "dense");
  CHECK(counters.tokens_attended - before_dense == attended);
  CHECK(counters.dense_requested == answered);
  CHECK(counters.clamped_rows == 0);
  CHECK(counters.status == 0);
}

void StageScene::check_wild_data() {
  constexpr int kWild[] = {INT32_MIN, -2, 5, 1 << 30, INT32_MAX};
  const auto wild = [&] { return kWild[random_.integer(0, 4)]; };
  run_attention(decode_chunks());
  const std::vector<unsigned char> bytes = output_bytes(spec_.query_rows);

  std::vector<int> lengths = case_.lengths;
  for (int b = 1; b < batch_; ++b) {
    lengths[b] = wild();
    starts_[b] = wild();
    for (std::int64_t i = 0; i < table_stride_; ++i)
      table_[b * table_stride_ + i] = wild();
  }
  lengths[1] = INT32_MAX;
  args_.lengths = keep(guarded(lengths))->as<int>();
  args_.starts = keep(guarded(starts_))->as<int>();
  if (!table_.empty()) args_.table = keep(guarded(table_))->as<int>();
  for (const Stage stage : {Stage::prepare_query, Stage::scan, Stage::select})
    run(stage);
  run_attention(decode_chunks());
  CHECK(output_bytes(spec_.query_rows) == bytes);
  CHECK(args_.counters->status == (adamas_abi::kLengthClamped | adamas_abi::kBadTable));

  const int own = spec_.query_rows * selections_;  // selections of the first sequence
  for (int s = own; s < rows_ * selections_; ++s) {
    args_.counts[s] = wild();
    for (int i = 0; i < spec_.budget; ++i)
      args_.positions[s * spec_.budget + i] = wild();
  }
  run_attention(decode_chunks());
  CHECK(output_bytes(spec_.query_rows) == bytes);
  CHECK((args_.counters->status & adamas_abi::kBadPosition) != 0);

  std::vector<int> slots;
  for (int i = 0; i < 100; ++i)
    slots.push_back(wild());
  args_.slots = keep(guarded(slots))->as<int>();
  args_.count = shape_.slots = 100;
  run(Stage::encode);
  CHECK((args_.counters->status & adamas_abi::kBadSlot) != 0);
}

namespace {

std::string text_of(const StageCase& stage_case) {
  return fmt::format("spec: {}, lengths: {}, seed: {}", stage_case.spec, fmt::join(stage_case.lengths, " "),
                     stage_case.seed);
}

}  // namespace

void check_stages(const StageCase& stage_case) {
  if (!can_compile()) return;
  INFO(text_of(stage_case));
  StageScene scene(stage_case);
  scene.check_codes();
  scene.check_selection();
  scene.check_attention();
}

void check_wild_data(const StageCase& stage_case) {
  if (!can_compile()) return;
  INFO(text_of(stage_case));
  StageScene scene(stage_case);
  scene.check_codes();
  scene.check_selection();
  scene.check_attention();
  scene.check_wild_data();
}

}  // namespace adamas::tests
