// See cpu_stages.hpp.
#include "tests/dispatch/cpu_stages.hpp"
#include "tests/spec_to_oracle.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>

#include "codegen/cpu_layout.hpp"
#include "runtime/compile/cpu_compiler.hpp"
#include "runtime/device/shared_object.hpp"
#include "templates/args.h"

namespace adamas::tests {
namespace {

using adamas_abi::Args;
using codegen::Stage;

/// Memory that ends exactly where an inaccessible page begins; filled with 0xff (a NaN in every format).
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + page - 1) / page * page + 2 * page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    auto* const first = static_cast<unsigned char*>(base_);
    mprotect(first, page, PROT_NONE);
    mprotect(first + mapped_ - page, page, PROT_NONE);
    data_ = first + mapped_ - page - bytes;
    std::memset(data_, 0xff, bytes);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  std::size_t size() const { return bytes_; }

 private:
  std::size_t bytes_, mapped_ = 0;
  void* base_ = nullptr;
  unsigned char* data_ = nullptr;
};

template <class T>
std::unique_ptr<Guarded> guarded(const std::vector<T>& values) {
  std::unique_ptr<Guarded> buffer = std::make_unique<Guarded>(values.size() * sizeof(T));
  std::copy(values.begin(), values.end(), buffer->as<T>());
  return buffer;
}

void put(oracle::Format format, void* to, std::int64_t index, float value) {
  if (format == oracle::Format::kF32) {
    static_cast<float*>(to)[index] = value;
  } else {
    static_cast<std::uint16_t*>(to)[index] =
        format == oracle::Format::kF16 ? oracle::to_f16(value) : oracle::to_bf16(value);
  }
}

float get(oracle::Format format, const void* from, std::int64_t index) {
  if (format == oracle::Format::kF32) return static_cast<const float*>(from)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(from)[index];
  return format == oracle::Format::kF16 ? oracle::from_f16(bits) : oracle::from_bf16(bits);
}

int bytes_of(oracle::Format format) { return format == oracle::Format::kF32 ? 4 : 2; }

/// The three units of a spec, loaded; compiled once a process.
class Kernels {
 public:
  Kernels(const codegen::Spec& spec, const codegen::Tuning& tuning, const std::string& target) {
    static const auto compiler = runtime::make_cpu_compiler();
    for (const codegen::Unit unit : codegen::cpu_generator().units(spec, tuning, target)) {
      const std::string source = codegen::cpu_generator().emit(spec, tuning, target, unit);
      const auto result = compiler->compile({.name = fmt::format("{}.cc", name(unit)),
                                             .source = source,
                                             .target = target,
                                             .options = {},
                                             .spec_text = spec.text()});
      CHECK_MESSAGE(result.log.empty(), "warnings of unit ", name(unit), " of ", spec.text(), ":\n",
                    result.log);
      units_.push_back(std::make_unique<runtime::SharedObject>(std::string(name(unit)), result.binary));
    }
  }

  void run(Stage stage, const codegen::Grid& grid, const Args& args, bool backwards) const {
    using Entry = void (*)(const Args*, unsigned, unsigned, unsigned);
    void* const symbol = units_[static_cast<std::size_t>(unit_of(stage))]->symbol(entry_name(stage));
    REQUIRE(symbol != nullptr);
    const std::uint32_t items = grid.x * grid.y * grid.z;
    for (std::uint32_t i = 0; i < items; ++i) {
      const std::uint32_t item = backwards ? items - 1 - i : i;
      reinterpret_cast<Entry>(symbol)(&args, item % grid.x, item / grid.x % grid.y, item / grid.x / grid.y);
    }
  }

 private:
  std::vector<std::unique_ptr<runtime::SharedObject>> units_;
};

const Kernels& kernels_of(const codegen::Spec& spec, const codegen::Tuning& tuning,
                          const std::string& target) {
  static std::map<std::string, std::unique_ptr<Kernels>> loaded;
  auto& kernels = loaded[spec.text() + tuning.text() + target];
  if (!kernels) kernels = std::make_unique<Kernels>(spec, tuning, target);
  return *kernels;
}

/// The host's side of a call: buffers, tables, and the oracle's view of the same data.
class Scene {
 public:
  explicit Scene(const StageCase& stage_case);

  void check_codes();
  void check_selection();
  void check_kept_keys();
  void check_attention();
  void check_wild_data();

 private:
  void place_sequences();
  void write_cache();
  std::int64_t slot(int sequence, std::int64_t position) const;
  void run(Stage stage, bool backwards = false) {
    kernels_.run(stage, generator_.grid(stage, spec_, tuning_, shape_), args_, backwards);
  }
  void run_attention(std::int64_t chunks, bool backwards = false);
  std::int64_t decode_chunks() const;
  std::vector<unsigned char> output_bytes(int rows) const;
  void check_rows(const std::vector<oracle::Output>& want, const char* what);
  Guarded* keep(std::unique_ptr<Guarded> buffer) {
    buffers_.push_back(std::move(buffer));
    return buffers_.back().get();
  }
  Guarded* keep(std::size_t bytes) { return keep(std::make_unique<Guarded>(bytes)); }

  const StageCase& case_;
  const codegen::Generator& generator_ = codegen::cpu_generator();
  const codegen::Spec spec_;
  const codegen::Tuning tuning_;
  const codegen::Facts facts_;
  const oracle::Config config_;
  const Kernels& kernels_;
  oracle::Random random_;
  const int batch_, rows_, heads_, selections_;
  std::vector<oracle::Problem> problems_;
  std::vector<oracle::Call> calls_;
  std::vector<std::vector<std::uint8_t>> codes_;
  std::vector<int> starts_;
  std::vector<int> table_;
  std::int64_t table_stride_ = 0, page_tokens_ = 0, pages_ = 0, sequence_slots_ = 0, max_tokens_ = 1;
  codegen::Shape shape_;
  Args args_{};
  std::vector<std::unique_ptr<Guarded>> buffers_;
};

Scene::Scene(const StageCase& stage_case)
    : case_(stage_case),
      spec_(codegen::Spec::parse(stage_case.spec)),
      tuning_(generator_.default_tuning(spec_, stage_case.target)),
      facts_(facts_of(spec_)),
      config_(config_of(spec_)),
      kernels_(kernels_of(spec_, tuning_, stage_case.target)),
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

  Guarded* const query =
      keep(static_cast<std::size_t>(rows_) * heads_ * spec_.head_dim * bytes_of(config_.q_type));
  const std::int64_t per_sequence = std::int64_t{spec_.query_rows} * heads_ * spec_.head_dim;
  for (int b = 0; b < batch_; ++b) {
    for (std::int64_t i = 0; i < per_sequence; ++i) {
      put(config_.q_type, query->as<void>(), b * per_sequence + i, problems_[b].queries[i]);
    }
  }
  args_.query = query->as<void>();
  args_.query_head_stride = spec_.head_dim;
  args_.query_row_stride = std::int64_t{heads_} * spec_.head_dim;
  auto* const counters = keep(sizeof(adamas_abi::Counters))->as<adamas_abi::Counters>();
  *counters = {};
  args_.counters = counters;
}

void Scene::place_sequences() {
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

std::int64_t Scene::slot(int sequence, std::int64_t position) const {
  const std::int64_t index = starts_[sequence] + position;
  if (table_.empty()) return sequence * sequence_slots_ + index;
  return table_[sequence * table_stride_ + index / page_tokens_] * page_tokens_ + index % page_tokens_;
}

void Scene::write_cache() {
  const auto strides = [&](int dim, adamas_abi::i64& page, adamas_abi::i64& token, adamas_abi::i64& head) {
    token = case_.head_major ? dim : std::int64_t{dim} * case_.kv_heads;
    head = case_.head_major ? dim * page_tokens_ : dim;
    page = dim * page_tokens_ * case_.kv_heads;
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

void Scene::check_codes() {
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

void Scene::check_selection() {
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
void Scene::check_kept_keys() {
  const std::size_t lists = static_cast<std::size_t>(rows_) * selections_;
  const std::vector<int> positions(args_.positions, args_.positions + lists * spec_.budget);
  const std::vector<int> counts(args_.counts, args_.counts + lists);
  args_.out_scores = nullptr;
  for (const int least : {-1, 1, facts_.key_limit}) {
    run(Stage::prepare_query);
    for (std::int64_t query = 0; query < std::int64_t{rows_} * heads_ && least >= 0; ++query) {
      unsigned char* const rule = args_.prepared + query * generator_.prepared_query_bytes(spec_) +
                                  codegen::cpu_scan_layout(spec_).table_bytes;
      std::memcpy(rule + sizeof(std::int32_t), &least, static_cast<std::size_t>(facts_.key_bytes));
    }
    run(Stage::scan);
    run(Stage::select);
    CHECK(std::equal(positions.begin(), positions.end(), args_.positions));
    CHECK(std::equal(counts.begin(), counts.end(), args_.counts));
  }
}

void Scene::check_rows(const std::vector<oracle::Output>& want, const char* what) {
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
            get(config_.out_type, args_.out, (std::int64_t{row} * heads_ + h) * spec_.value_dim + e));
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

void Scene::run_attention(std::int64_t chunks, bool backwards) {
  args_.chunks = shape_.chunks = static_cast<int>(chunks);
  args_.partial =
      keep(static_cast<std::size_t>(rows_) * heads_ * chunks * (spec_.value_dim + 2) * sizeof(float))
          ->as<float>();
  run(Stage::attend, backwards);
  run(Stage::merge, backwards);
}

std::int64_t Scene::decode_chunks() const {
  const auto ceil_div = [](std::int64_t a, std::int64_t b) { return (a + b - 1) / b; };
  return std::max(ceil_div(spec_.budget, tuning_.chunk), ceil_div(case_.dense_below, tuning_.dense_chunk));
}

/// Outputs and log-sum-exps of the first rows of the call.
std::vector<unsigned char> Scene::output_bytes(int rows) const {
  const std::size_t outputs =
      static_cast<std::size_t>(rows) * heads_ * spec_.value_dim * bytes_of(config_.out_type);
  const std::size_t sums = static_cast<std::size_t>(rows) * heads_ * sizeof(float);
  std::vector<unsigned char> bytes(outputs + sums);
  std::memcpy(bytes.data(), args_.out, outputs);
  std::memcpy(bytes.data() + outputs, args_.lse, sums);
  return bytes;
}

void Scene::check_attention() {
  args_.out = keep(static_cast<std::size_t>(rows_) * heads_ * spec_.value_dim * bytes_of(config_.out_type))
                  ->as<void>();
  args_.out_head_stride = spec_.value_dim;
  args_.out_row_stride = std::int64_t{heads_} * spec_.value_dim;
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

void Scene::check_wild_data() {
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

bool can_compile() {
  static const std::string missing = runtime::make_cpu_compiler()->unavailable();
  if (!missing.empty()) MESSAGE("left out: " << missing);
  return missing.empty();
}

std::string text_of(const StageCase& stage_case) {
  return fmt::format("spec: {}, lengths: {}, seed: {}", stage_case.spec, fmt::join(stage_case.lengths, " "),
                     stage_case.seed);
}

}  // namespace

void check_stages(const StageCase& stage_case) {
  if (!can_compile()) return;
  INFO(text_of(stage_case));
  Scene scene(stage_case);
  scene.check_codes();
  scene.check_selection();
  scene.check_attention();
}

void check_wild_data(const StageCase& stage_case) {
  if (!can_compile()) return;
  INFO(text_of(stage_case));
  Scene scene(stage_case);
  scene.check_codes();
  scene.check_selection();
  scene.check_attention();
  scene.check_wild_data();
}

}  // namespace adamas::tests
