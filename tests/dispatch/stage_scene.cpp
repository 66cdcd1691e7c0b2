// Sets the scene: random problems, their place in the cache, and the arguments of a call. The checks are in
// cpu_stages.cpp.
#include "tests/dispatch/stage_scene.hpp"

#include <algorithm>
#include <cmath>

#include "tests/spec_to_oracle.hpp"

namespace adamas::tests {

StageScene::StageScene(const StageCase& stage_case)
    : case_(stage_case),
      spec_(codegen::Spec::parse(stage_case.spec)),
      tuning_(generator_.default_tuning(spec_, stage_case.target)),
      facts_(facts_of(spec_)),
      config_(config_of(spec_)),
      kernels_(stage_kernels(spec_, tuning_, stage_case.target)),
      random_(stage_case.seed),
      batch_(static_cast<int>(stage_case.lengths.size())),
      rows_(batch_ * spec_.query_rows),
      heads_(stage_case.kv_heads * spec_.group),
      selections_(stage_case.kv_heads * facts_.selections_per_kv_head) {
  oracle::Call call;
  call.kv_heads = case_.kv_heads;
  call.scale = 1.0F / std::sqrt(static_cast<float>(spec_.head_dim));
  call.soft_cap = case_.soft_cap;
  call.window = case_.window;
  call.dense_below = case_.dense_below;
  for (int h = 0; h < heads_; ++h)
    call.sink_logits.push_back(static_cast<float>(random_.normal()));
  for (const int length : case_.lengths) {
    max_tokens_ = std::max<std::int64_t>(max_tokens_, length);
    call.row_budget.clear();
    for (int r = 0; case_.row_budgets && r < spec_.query_rows; ++r) {
      call.row_budget.push_back(static_cast<int>(random_.integer(-1, spec_.budget + 1)));
    }
    calls_.push_back(call);
    problems_.push_back(oracle::random_problem(random_, config_, call, length, case_.kind));
  }
  place_sequences();
  write_cache();

  // Thresholds are of heads, so sequences share them: those of the first problem.
  const oracle::Thresholds& thresholds = problems_[0].thresholds;
  for (int b = 0; b < batch_; ++b) {
    codes_.push_back(oracle::encode_keys(config_, problems_[b].key_rows(config_, calls_[b]), thresholds.key));
  }
  args_.key_thresholds = keep(guarded(thresholds.key))->as<float>();
  if (spec_.estimator == codegen::Estimator::manhattan) {
    args_.query_thresholds = keep(guarded(thresholds.query))->as<float>();
  }

  shape_ = {.batch = batch_, .kv_heads = case_.kv_heads, .max_tokens = max_tokens_, .slots = 0, .chunks = 1};
  args_.batch = batch_;
  args_.kv_heads = case_.kv_heads;
  args_.max_tokens = max_tokens_;
  args_.page_tokens = page_tokens_;
  args_.pages = pages_;
  args_.sequence_slots = sequence_slots_;
  args_.scale = call.scale;
  args_.soft_cap = call.soft_cap;
  args_.window = case_.window;
  args_.dense_below = case_.dense_below;
  args_.lengths = keep(guarded(case_.lengths))->as<int>();
  if (case_.starts || case_.packed) args_.starts = keep(guarded(starts_))->as<int>();
  if (spec_.sink_logits) args_.sink_logits = keep(guarded(call.sink_logits))->as<float>();
  if (case_.row_budgets) {
    std::vector<int> budgets;
    for (const auto& c : calls_)
      budgets.insert(budgets.end(), c.row_budget.begin(), c.row_budget.end());
    args_.row_budgets = keep(guarded(budgets))->as<int>();
  }

  args_.query_head_stride = row_stride(spec_.head_dim);
  args_.query_row_stride = heads_ * args_.query_head_stride;
  void* const query =
      keep(static_cast<std::size_t>(rows_ * args_.query_row_stride) * bytes_of(config_.q_type))->as<void>();
  for (int b = 0; b < batch_; ++b) {
    for (std::size_t i = 0; i < problems_[b].queries.size(); ++i) {
      const auto dim = static_cast<std::size_t>(spec_.head_dim);
      const std::int64_t head =
          std::int64_t{b} * spec_.query_rows * heads_ + static_cast<std::int64_t>(i / dim);
      put(config_.q_type, query, head * args_.query_head_stride + static_cast<std::int64_t>(i % dim),
          problems_[b].queries[i]);
    }
  }
  args_.query = query;
  auto* const counters = keep(sizeof(adamas_abi::Counters))->as<adamas_abi::Counters>();
  *counters = {};
  args_.counters = counters;
}

void StageScene::place_sequences() {
  std::int64_t used = 0;
  for (const int length : case_.lengths) {
    starts_.push_back(case_.starts ? static_cast<int>(random_.integer(0, 150)) : 0);
    if (case_.packed) {
      starts_.back() += static_cast<int>(used);
      used = starts_.back() + length;
    } else {
      used = std::max<std::int64_t>(used, starts_.back() + length);
    }
  }
  used = std::max<std::int64_t>(used, 1);
  if (spec_.cache_form == codegen::CacheForm::contiguous) {
    page_tokens_ = used;
    pages_ = case_.packed ? 1 : batch_;
    sequence_slots_ = case_.packed ? 0 : used;
    return;
  }
  page_tokens_ = spec_.page_size;
  table_stride_ = (used + page_tokens_ - 1) / page_tokens_;
  pages_ = table_stride_ * batch_ + 1;
  std::vector<int> free_pages;
  for (int p = 0; p < pages_; ++p)
    free_pages.push_back(p);
  for (std::int64_t i = 0; i < table_stride_ * batch_; ++i) {
    const auto pick =
        static_cast<std::size_t>(random_.integer(0, static_cast<std::int64_t>(free_pages.size()) - 1));
    table_.push_back(free_pages[pick]);
    free_pages.erase(free_pages.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  args_.table = keep(guarded(table_))->as<int>();
  args_.table_stride = table_stride_;
}

std::int64_t StageScene::slot(int sequence, std::int64_t position) const {
  const std::int64_t index = starts_[sequence] + position;
  if (table_.empty()) return sequence * sequence_slots_ + index;
  return table_[sequence * table_stride_ + index / page_tokens_] * page_tokens_ + index % page_tokens_;
}

void StageScene::write_cache() {
  const auto strides = [&](int dim, adamas_abi::i64& page, adamas_abi::i64& token, adamas_abi::i64& head) {
    const std::int64_t row = row_stride(dim);
    token = case_.head_major ? row : row * case_.kv_heads;
    head = case_.head_major ? row * page_tokens_ : row;
    page = row * page_tokens_ * case_.kv_heads;
  };
  strides(spec_.head_dim, args_.key_page_stride, args_.key_token_stride, args_.key_head_stride);
  strides(spec_.value_dim, args_.value_page_stride, args_.value_token_stride, args_.value_head_stride);
  const int bytes = bytes_of(config_.kv_type);
  void* const keys = keep(static_cast<std::size_t>(pages_ * args_.key_page_stride) * bytes)->as<void>();
  void* const values = keep(static_cast<std::size_t>(pages_ * args_.value_page_stride) * bytes)->as<void>();
  for (int b = 0; b < batch_; ++b) {
    const auto key_rows = problems_[b].key_rows(config_, calls_[b]);
    const auto value_rows = problems_[b].value_rows(config_, calls_[b]);
    for (std::int64_t p = 0; p < case_.lengths[b]; ++p) {
      const std::int64_t page = slot(b, p) / page_tokens_, token = slot(b, p) % page_tokens_;
      for (int h = 0; h < case_.kv_heads; ++h) {
        const auto key = key_rows.at(p, h);
        const auto value = value_rows.at(p, h);
        const std::int64_t k =
            page * args_.key_page_stride + token * args_.key_token_stride + h * args_.key_head_stride;
        const std::int64_t v =
            page * args_.value_page_stride + token * args_.value_token_stride + h * args_.value_head_stride;
        for (std::size_t e = 0; e < key.size(); ++e)
          put(config_.kv_type, keys, k + e, key[e]);
        for (std::size_t e = 0; e < value.size(); ++e)
          put(config_.kv_type, values, v + e, value[e]);
      }
    }
  }
  args_.keys = keys;
  args_.values = values;
}

}  // namespace adamas::tests
