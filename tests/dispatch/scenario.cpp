// Running one scenario and comparing with the oracle: see scenario.hpp.
#include "tests/dispatch/scenario.hpp"

#include <doctest/doctest.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "codegen/facts.hpp"
#include "codegen/format.hpp"
#include "codegen/spec.hpp"
#include "tests/dispatch/compare.hpp"
#include "tests/dispatch/device_memory.hpp"
#include "tests/dispatch/forced_tuning.hpp"
#include "tests/dispatch/host_cache.hpp"
#include "tests/spec_to_oracle.hpp"

namespace adamas::tests {
namespace {

using codegen::Spec;

/// Everything of one scenario on one device.
class Run {
 public:
  Run(const Context& context, const Scenario& scenario)
      : context_(context),
        scenario_(scenario),
        spec_(Spec::parse(scenario.spec)),
        config_(config_of(spec_)),
        random_(scenario.seed),
        placement_(place(scenario, spec_, random_)),
        batch_(static_cast<int>(scenario.lengths.size())),
        rows_(batch_ * spec_.query_rows),
        query_heads_(scenario.kv_heads * spec_.group),
        selections_(scenario.kv_heads * codegen::facts_of(spec_).selections_per_kv_head),
        kernel_(context.prepare(scenario.spec,
                                {.max_batch = batch_,
                                 .kv_heads = scenario.kv_heads,
                                 .max_tokens = placement_.max_tokens,
                                 .max_slots = placement_.max_slots},
                                ForcedTuning::apply(scenario.tuning))),
        plan_(kernel_.plan({.batch = batch_, .dense_below = scenario.dense_below})) {
    make_problems();
  }

  void check() {
    const DeviceMemory codes = encode();
    const DeviceMemory imported = check_codes(codes);
    check_select(imported);
    check_attention(imported);
  }

 private:
  void make_problems() {
    call_.kv_heads = scenario_.kv_heads;
    call_.scale = 1.0F / std::sqrt(static_cast<float>(spec_.head_dim));
    call_.soft_cap = scenario_.soft_cap;
    call_.window = scenario_.window;
    call_.dense_below = scenario_.dense_below;
    if (spec_.sink_logits) {
      for (int h = 0; h < query_heads_; ++h)
        call_.sink_logits.push_back(static_cast<float>(random_.normal()));
    }
    if (spec_.kv_type == codegen::ElementType::f8e4m3fn) {
      const int scales = scenario_.scale_per_head ? scenario_.kv_heads : 1;
      for (int i = 0; i < scales; ++i) {
        // Powers of two leave whole numbers whole.
        const bool whole = scenario_.kind == oracle::RowKind::kInteger;
        call_.key_scale.push_back(whole ? 0.5F : 0.02F + static_cast<float>(random_.uniform()) / 16);
        call_.value_scale.push_back(0.02F + static_cast<float>(random_.uniform()) / 16);
      }
    }
    CacheBuilder builder(scenario_, spec_, placement_, random_);
    for (int b = 0; b < batch_; ++b) {
      problems_.push_back(
          oracle::random_problem(random_, config_, call_, scenario_.lengths[b], scenario_.kind));
      const auto& problem = problems_.back();
      const auto keys = problem.key_rows(config_, call_), values = problem.value_rows(config_, call_);
      for (int p = 0; p < scenario_.lengths[b]; ++p) {
        for (int h = 0; h < scenario_.kv_heads; ++h) {
          const auto key = keys.at(p, h), value = values.at(p, h);
          builder.put(b, p, h, oracle::pack(config_.kv_type, key, oracle::scale_of(call_.key_scale, h)),
                      oracle::pack(config_.kv_type, value, oracle::scale_of(call_.value_scale, h)));
        }
      }
      const auto query = oracle::pack(config_.q_type, problem.queries, 1);
      query_bytes_.insert(query_bytes_.end(), query.begin(), query.end());
    }
    const auto longest = std::max_element(scenario_.lengths.begin(), scenario_.lengths.end());
    thresholds_ = problems_[longest - scenario_.lengths.begin()].thresholds;
    host_cache_ = builder.take();
    if (scenario_.row_budgets) {
      for (int r = 0; r < rows_; ++r) {
        row_budgets_.push_back(static_cast<std::int32_t>(random_.integer(-1, spec_.budget + 1)));
      }
    }
  }

  /// Per sequence, because row budgets are.
  oracle::Call call_of(int b) const {
    oracle::Call call = call_;
    if (scenario_.row_budgets) {
      call.row_budget.assign(row_budgets_.begin() + b * spec_.query_rows,
                             row_budgets_.begin() + (b + 1) * spec_.query_rows);
    }
    return call;
  }

  adamas_cache cache() {
    if (!key_memory_) {
      key_memory_.emplace(DeviceMemory::of(context_, host_cache_.key));
      if (!host_cache_.value.empty()) value_memory_.emplace(DeviceMemory::of(context_, host_cache_.value));
      table_memory_.emplace(DeviceMemory::of(context_, placement_.table));
      key_scale_memory_.emplace(DeviceMemory::of(context_, call_.key_scale));
      value_scale_memory_.emplace(DeviceMemory::of(context_, call_.value_scale));
      value_table_memory_.emplace(DeviceMemory::of(context_, placement_.value_table));
      indptr_memory_.emplace(DeviceMemory::of(context_, placement_.indptr));
    }
    adamas_cache cache = host_cache_.strides;
    const auto* key = key_memory_->as<std::byte>();
    if (spec_.cache_form == codegen::CacheForm::pointers) {
      if (!addresses_memory_) {
        std::vector<const void*> addresses;
        for (const std::int64_t begin : host_cache_.page_begins)
          addresses.push_back(begin < 0 ? nullptr : key + begin);
        addresses_memory_.emplace(DeviceMemory::of(context_, addresses));
      }
      cache.page_addresses = addresses_memory_->as<const void*>();
    } else {
      cache.key = key;
      cache.value = value_memory_ ? value_memory_->data() : key + host_cache_.value_begin;
    }
    if (!call_.key_scale.empty()) {
      cache.key_scale = key_scale_memory_->as<float>();
      cache.value_scale = value_scale_memory_->as<float>();
      cache.scale_stride = scenario_.scale_per_head ? 1 : 0;
    }
    cache.table = placement_.table.empty() ? nullptr : table_memory_->as<std::int32_t>();
    cache.table_stride = placement_.table_stride;
    if (spec_.cache_form == codegen::CacheForm::csr) cache.indptr = indptr_memory_->as<std::int32_t>();
    if (spec_.tables == codegen::Tables::split) cache.value_table = value_table_memory_->as<std::int32_t>();
    return cache;
  }

  DeviceMemory encode() {
    DeviceMemory codes(context_, kernel_.info().code_bytes);
    const auto thresholds = DeviceMemory::of(context_, thresholds_.key);
    if (scenario_.bulk) {
      const auto slots = placement_.page_tokens * placement_.pages;
      kernel_.encode({.cache = cache(),
                      .codes = codes.data(),
                      .first_slot = 0,
                      .count = slots,
                      .key_thresholds = thresholds.as<float>()});
      context_.synchronize();
      return codes;
    }
    std::vector<std::int32_t> slots{-1};
    for (const auto& sequence : placement_.slots)
      slots.insert(slots.end(), sequence.begin(), sequence.end());
    slots.push_back(-5);
    const auto slot_memory = DeviceMemory::of(context_, slots);
    const DeviceMemory counters(context_, ADAMAS_COUNTERS_BYTES);
    context_.clear(counters.data());
    kernel_.encode({.cache = cache(),
                    .codes = codes.data(),
                    .slots = slot_memory.as<std::int32_t>(),
                    .count = static_cast<std::int64_t>(slots.size()),
                    .key_thresholds = thresholds.as<float>(),
                    .counters = counters.data()});
    const Counters counted = context_.read(counters.data());
    CHECK(counted.tokens_encoded == (slots.size() - 2) * scenario_.kv_heads);
    CHECK(counted.status == 0);
    return codes;
  }

  /// Exports and compares; returns a second code buffer made by import, which all that follows reads.
  DeviceMemory check_codes(const DeviceMemory& codes) {
    const std::int64_t slots = placement_.page_tokens * placement_.pages;
    const std::size_t slot_bytes = static_cast<std::size_t>(scenario_.kv_heads) * spec_.head_dim;
    const DeviceMemory bytes(context_, slots * slot_bytes);
    kernel_.codes_export(
        {.codes = codes.data(), .bytes = bytes.as<std::uint8_t>(), .first_slot = 0, .count = slots});
    const auto exported = bytes.read<std::uint8_t>();
    for (int b = 0; b < batch_; ++b) {
      want_codes_.push_back(
          oracle::encode_keys(config_, problems_[b].key_rows(config_, call_), thresholds_.key));
      std::size_t wrong = 0;
      for (int p = 0; p < scenario_.lengths[b]; ++p) {
        wrong += std::memcmp(want_codes_[b].data() + p * slot_bytes,
                             exported.data() + placement_.slots[b][p] * slot_bytes, slot_bytes) != 0;
      }
      INFO("codes of sequence ", b);
      CHECK(wrong == 0);
    }
    DeviceMemory imported(context_, codes.size(), 0xa5);
    kernel_.codes_import(
        {.codes = imported.data(), .bytes = bytes.as<std::uint8_t>(), .first_slot = 0, .count = slots});
    context_.synchronize();
    return imported;
  }

  Call base_call(const DeviceMemory& codes) {
    if (!query_memory_) {
      query_memory_.emplace(DeviceMemory::of(context_, query_bytes_));
      lengths_memory_.emplace(DeviceMemory::of(context_, scenario_.lengths));
      starts_memory_.emplace(DeviceMemory::of(context_, placement_.starts));
      budgets_memory_.emplace(DeviceMemory::of(context_, row_budgets_));
      thresholds_memory_.emplace(DeviceMemory::of(context_, thresholds_.query));
      sinks_memory_.emplace(DeviceMemory::of(context_, call_.sink_logits));
      const auto info = plan_.info();
      workspace_.emplace(context_, std::max(info.workspace_bytes, info.dense_workspace_bytes));
      counters_.emplace(context_, ADAMAS_COUNTERS_BYTES);
    }
    const bool starts = scenario_.starts || scenario_.packed;
    return {.workspace = workspace_->data(),
            .workspace_bytes = workspace_->size(),
            .query = query_memory_->data(),
            .cache = cache(),
            .codes = codes.data(),
            .lengths = lengths_memory_->as<std::int32_t>(),
            .starts = starts ? starts_memory_->as<std::int32_t>() : nullptr,
            .row_budgets = scenario_.row_budgets ? budgets_memory_->as<std::int32_t>() : nullptr,
            .query_thresholds = thresholds_memory_->as<float>(),
            .soft_cap = scenario_.soft_cap,
            .window = scenario_.window,
            .sink_logits = sinks_memory_->as<float>(),
            .counters = counters_->data()};
  }

  void check_select(const DeviceMemory& codes) {
    const std::size_t per_row = static_cast<std::size_t>(selections_);
    const DeviceMemory positions(context_, rows_ * per_row * spec_.budget * 4);
    const DeviceMemory counts(context_, rows_ * per_row * 4);
    const DeviceMemory scores(context_, rows_ * per_row * placement_.max_tokens * 4);
    const DeviceMemory query_codes(context_, static_cast<std::size_t>(rows_) * query_heads_ * spec_.head_dim);
    Call call = base_call(codes);
    call.positions = positions.as<std::int32_t>();
    call.counts = counts.as<std::int32_t>();
    call.scores = scores.as<std::int32_t>();
    call.query_codes = query_codes.as<std::int8_t>();
    context_.clear(counters_->data());
    plan_.select(call);
    const Counters counted = context_.read(counters_->data());
    CHECK(counted.status == 0);

    const auto got_positions = positions.read<std::int32_t>();
    const auto got_counts = counts.read<std::int32_t>();
    const auto got_scores = scores.read<std::int32_t>();
    const auto got_query = query_codes.read<std::int8_t>();
    for (int b = 0; b < batch_; ++b) {
      const int tokens = scenario_.lengths[b];
      const oracle::Call oracle_call = call_of(b);
      const auto query =
          oracle::encode_queries(config_, problems_[b].query_rows(config_, call_), thresholds_.query);
      const auto want_scores = oracle::scores(config_, oracle_call, {query, query_heads_, spec_.head_dim},
                                              {want_codes_[b], scenario_.kv_heads, spec_.head_dim});
      selections_wanted_.push_back(oracle::select_all(config_, oracle_call, tokens, want_scores));
      for (int r = 0; r < spec_.query_rows; ++r) {
        const auto row = static_cast<std::size_t>(b * spec_.query_rows + r);
        const auto seen = oracle::visible(config_, oracle_call, tokens, r);
        INFO("sequence ", b, " of ", tokens, " tokens, row ", r);
        if (seen.size() > 0) {
          std::size_t wrong = 0;
          for (int i = 0; i < query_heads_ * spec_.head_dim; ++i) {
            wrong += got_query[row * query_heads_ * spec_.head_dim + i] !=
                     query[static_cast<std::size_t>(r) * query_heads_ * spec_.head_dim + i];
          }
          CHECK_MESSAGE(wrong == 0, "query integers");
        }
        for (int s = 0; s < selections_; ++s) {
          const auto& want = selections_wanted_[b][static_cast<std::size_t>(r) * selections_ + s];
          const auto at = row * per_row + s;
          INFO("selection ", s);
          std::size_t wrong = 0;
          for (int p = 0; p < tokens && seen.size() > 0; ++p) {
            const auto score = p >= seen.begin && p < seen.end
                                   ? want_scores[(static_cast<std::size_t>(r) * selections_ + s) * tokens + p]
                                   : std::numeric_limits<std::int32_t>::min();
            wrong += got_scores[at * placement_.max_tokens + p] != score;
          }
          CHECK_MESSAGE(wrong == 0, "scores");
          CHECK(got_counts[at] == want.count);
          CHECK(std::equal(want.positions.begin(), want.positions.end(),
                           got_positions.begin() + at * spec_.budget));
        }
      }
    }
    check_slots(codes, got_positions);
  }

  /// The same selection as physical slots.
  void check_slots(const DeviceMemory& codes, const std::vector<std::int32_t>& positions) {
    const DeviceMemory slots(context_, positions.size() * 4);
    const DeviceMemory counts(context_, rows_ * static_cast<std::size_t>(selections_) * 4);
    Call call = base_call(codes);
    call.positions = slots.as<std::int32_t>();
    call.counts = counts.as<std::int32_t>();
    call.positions_are_slots = 1;
    plan_.select(call);
    const auto got = slots.read<std::int32_t>();
    std::size_t wrong = 0;
    const auto per_sequence = positions.size() / batch_;
    for (std::size_t i = 0; i < positions.size(); ++i) {
      const auto want = positions[i] < 0 ? -1 : placement_.slots[i / per_sequence][positions[i]];
      wrong += got[i] != want;
    }
    CHECK_MESSAGE(wrong == 0, "slots");
  }

  enum class Operation { attend, decode, dense };

  void run_operation(Operation operation, const DeviceMemory& codes, std::vector<float>& out,
                     std::vector<float>& lse) {
    const std::size_t row_heads = static_cast<std::size_t>(rows_) * query_heads_;
    const DeviceMemory out_memory(context_, row_heads * spec_.value_dim * element_bytes(spec_.out_type));
    const DeviceMemory lse_memory(context_, row_heads * 4);
    Call call = base_call(codes);
    call.out = out_memory.data();
    call.lse = spec_.lse ? lse_memory.as<float>() : nullptr;
    context_.clear(counters_->data());
    if (operation == Operation::attend) {
      std::vector<std::int32_t> positions, counts;
      for (const auto& sequence : selections_wanted_) {
        for (const auto& selection : sequence) {
          positions.insert(positions.end(), selection.positions.begin(), selection.positions.end());
          counts.push_back(selection.count);
        }
      }
      const auto position_memory = DeviceMemory::of(context_, positions);
      const auto count_memory = DeviceMemory::of(context_, counts);
      call.positions = position_memory.as<std::int32_t>();
      call.counts = count_memory.as<std::int32_t>();
      plan_.attend(call);
      context_.synchronize();
    } else if (operation == Operation::decode) {
      plan_.decode(call);
    } else {
      plan_.dense(call);
    }
    const Counters counted = context_.read(counters_->data());
    CHECK(counted.status == 0);
    CHECK(counted.clamped_rows == 0);
    out = read_floats(out_memory, config_.out_type);
    lse = spec_.lse ? lse_memory.read<float>() : std::vector<float>{};
  }

  void check_attention(const DeviceMemory& codes) {
    const struct {
      Operation operation;
      const char* name;
    } operations[] = {
        {Operation::attend, "attend"}, {Operation::decode, "decode"}, {Operation::dense, "dense"}};
    for (const auto& [operation, name] : operations) {
      std::vector<float> out, lse, again, lse_again;
      run_operation(operation, codes, out, lse);
      run_operation(operation, codes, again, lse_again);
      CHECK_MESSAGE(std::memcmp(out.data(), again.data(), out.size() * 4) == 0, name,
                    " differs between two runs");
      for (int b = 0; b < batch_; ++b) {
        const auto queries = problems_[b].query_rows(config_, call_);
        const auto keys = problems_[b].key_rows(config_, call_),
                   values = problems_[b].value_rows(config_, call_);
        const oracle::Call oracle_call = call_of(b);
        oracle::Output want;
        if (operation == Operation::attend) {
          want = oracle::attend_all(config_, oracle_call, queries, keys, values, selections_wanted_[b]);
        } else if (operation == Operation::decode) {
          want = oracle::decode(config_, oracle_call, queries, keys, values,
                                {want_codes_[b], scenario_.kv_heads, spec_.head_dim}, thresholds_);
        } else {
          want = oracle::dense(config_, oracle_call, queries, keys, values);
        }
        const auto first = static_cast<std::size_t>(b) * spec_.query_rows * query_heads_;
        check_rows(want.out, out, spec_.value_dim, first, config_.out_type, name);
        if (spec_.lse) check_lse(want.lse, lse, first, name);
      }
    }
  }

  const Context& context_;
  const Scenario& scenario_;
  const Spec spec_;
  const oracle::Config config_;
  oracle::Random random_;
  const Placement placement_;
  const int batch_, rows_, query_heads_, selections_;
  const Kernel kernel_;
  const Plan plan_;

  oracle::Call call_;
  oracle::Thresholds thresholds_;
  std::vector<oracle::Problem> problems_;
  std::vector<std::vector<std::uint8_t>> want_codes_;
  std::vector<std::vector<oracle::Selection>> selections_wanted_;
  std::vector<std::byte> query_bytes_;
  std::vector<std::int32_t> row_budgets_;
  HostCache host_cache_;
  std::optional<DeviceMemory> key_memory_, value_memory_, table_memory_, key_scale_memory_,
      value_scale_memory_, value_table_memory_, addresses_memory_, indptr_memory_, query_memory_,
      lengths_memory_, starts_memory_, budgets_memory_, thresholds_memory_, sinks_memory_, workspace_,
      counters_;
};

}  // namespace

std::string Scenario::text() const {
  return fmt::format(
      "spec \"{}\" tuning \"{}\" kv_heads {} lengths [{}] kind {} layout {} packed {} starts {} row_budgets "
      "{} bulk {} scale_per_head {} "
      "dense_below {} window {} soft_cap {} seed {}",
      spec, ForcedTuning::apply(tuning), kv_heads, fmt::join(lengths, ", "), static_cast<int>(kind),
      static_cast<int>(layout), packed, starts, row_budgets, bulk, scale_per_head, dense_below, window,
      soft_cap, seed);
}

void check_scenario(const Context& context, const Scenario& scenario) {
  INFO(scenario.text());
  Run(context, scenario).check();
}

}  // namespace adamas::tests
