// Layout of an emulated batch and its operations. See problem.hpp.
#include "tests/cuda_emulation/problem.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "tests/cuda_emulation/block.hpp"
#include "tests/cuda_emulation/specs.hpp"
#include "tests/spec_to_oracle.hpp"

namespace adamas::cuda_emulation {
namespace {

using codegen::CacheForm;
using codegen::Stage;

constexpr std::string_view kTarget = "sm_90a";

constexpr std::uint32_t kNan32 = 0x7fffffff;  // in 16-bit formats too: what no kernel may take for data

std::uint16_t pack(oracle::Format format, float value) {
  return format == oracle::Format::kF16 ? oracle::to_f16(value) : oracle::to_bf16(value);
}

/// Element `index` of an array of `format`.
void put(void* array, oracle::Format format, std::int64_t index, float value) {
  auto* base = static_cast<unsigned char*>(array);
  if (format == oracle::Format::kF32) {
    std::memcpy(base + index * 4, &value, 4);
  } else {
    const std::uint16_t bits = pack(format, value);
    std::memcpy(base + index * 2, &bits, 2);
  }
}

float get(const std::vector<std::uint32_t>& words, oracle::Format format, std::int64_t index) {
  const auto* base = reinterpret_cast<const unsigned char*>(words.data());
  if (format == oracle::Format::kF32) {
    float value;
    std::memcpy(&value, base + index * 4, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, base + index * 2, 2);
  return format == oracle::Format::kF16 ? oracle::from_f16(bits) : oracle::from_bf16(bits);
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

bool has_decode_unit(int index) {
  const auto spec = codegen::Spec::parse(kSpecs[index].spec);
  const auto tuning = codegen::Tuning::parse(kSpecs[index].tuning, spec, kTarget);
  const auto units = codegen::cuda_generator().units(spec, tuning, kTarget);
  return std::ranges::find(units, codegen::Unit::decode) != units.end();
}

Problem::Problem(int spec_index, oracle::RowKind kind, std::vector<int> sequence_lengths)
    : index(spec_index),
      spec(codegen::Spec::parse(kSpecs[spec_index].spec)),
      tuning(codegen::Tuning::parse(kSpecs[spec_index].tuning, spec, kTarget)),
      facts(codegen::facts_of(spec)),
      config(tests::config_of(spec)),
      lengths(std::move(sequence_lengths)) {
  oracle::Random random(static_cast<std::uint64_t>(index) * 16 + static_cast<std::uint64_t>(kind));
  max_tokens = *std::max_element(lengths.begin(), lengths.end()) + 3;
  call.kv_heads = kKvHeads;
  call.scale = 0.11f;
  call.soft_cap = 1.5f;
  call.window = spec.budget + 13;
  for (int head = 0; head < query_heads(); ++head) {
    call.sink_logits.push_back(0.25f * static_cast<float>(head) - 0.5f);
  }
  if (spec.kv_type == codegen::ElementType::f8e4m3fn) {
    call.key_scale =
        kind == oracle::RowKind::kInteger ? std::vector<float>{0.25f, 0.5f} : std::vector{0.021f, 0.043f};
    call.value_scale = {0.017f, 0.031f};
    args.key_scale = call.key_scale.data();
    args.value_scale = call.value_scale.data();
    args.scale_stride = 1;
  }
  for (const int length : lengths) {
    sequences.push_back(oracle::random_problem(random, config, call, length, kind));
  }
  thresholds = sequences.front().thresholds;
  lay_out_cache(random);
  lay_out_queries();

  args.lengths = lengths.data();
  args.key_thresholds = thresholds.key.data();
  args.query_thresholds = thresholds.query.data();
  args.sink_logits = call.sink_logits.data();
  args.max_tokens = max_tokens;
  args.batch = batch();
  args.kv_heads = kKvHeads;
  args.counters = &counters;
  args.scale = call.scale;
  args.soft_cap = call.soft_cap;
  args.window = static_cast<int>(call.window);

  args.score_stride = codegen::cuda_generator().score_stride(spec, tuning, max_tokens);
  const std::int64_t lists = static_cast<std::int64_t>(rows()) * selections();
  prepared_.resize(rows() * query_heads() * codegen::cuda_generator().prepared_query_bytes(spec) / 8);
  order_keys_.assign(lists * args.score_stride * facts.key_bytes / 8, ~std::uint64_t{0});
  args.prepared = reinterpret_cast<unsigned char*>(prepared_.data());
  args.keys_of_scores = reinterpret_cast<unsigned char*>(order_keys_.data());
  positions.assign(lists * spec.budget, -7);
  counts.assign(lists, -7);
  args.positions = positions.data();
  args.counts = counts.data();
}

void Problem::lay_out_cache(oracle::Random& random) {
  const bool paged = spec.cache_form != CacheForm::contiguous;
  for (int b = 0; b < batch(); ++b) {
    starts_.push_back(static_cast<int>(random.integer(0, 5)));
  }
  // One page more than the longest sequence needs, and shared pages nowhere: every token has a slot of its
  // own.
  args.page_tokens = paged ? facts.page_tokens : max_tokens + 5;
  args.table_stride = paged ? ceil_div(max_tokens + 5, args.page_tokens) : 1;
  args.pages = batch() * args.table_stride;
  if (spec.cache_form == CacheForm::csr) {
    for (int b = 0; b <= batch(); ++b)
      indptr_.push_back(static_cast<int>(b * args.table_stride));
    args.indptr = indptr_.data();
    args.table_stride = args.pages;
  }
  args.sequence_slots = paged ? 0 : args.page_tokens;
  args.starts = starts_.data();
  table_.resize(args.pages);
  std::iota(table_.begin(), table_.end(), 0);
  if (paged) {
    for (std::size_t i = table_.size() - 1; i > 0; --i) {
      std::swap(table_[i], table_[random.integer(0, static_cast<std::int64_t>(i))]);
    }
  }
  args.table = table_.data();
  if (spec.tables == codegen::Tables::split) {
    value_table_.assign(table_.rbegin(), table_.rend());
    args.value_table = value_table_.data();
  }

  const int width = codegen::element_bytes(spec.kv_type), padding = 16 / width;
  args.key_head_stride = spec.head_dim + padding;
  args.key_token_stride = kKvHeads * args.key_head_stride + 2 * padding;
  args.key_page_stride = args.page_tokens * args.key_token_stride + padding;
  args.value_token_stride = spec.value_dim;
  args.value_head_stride = args.page_tokens * args.value_token_stride;
  args.value_page_stride = kKvHeads * args.value_head_stride;
  const std::int64_t key_page = args.key_page_stride * width, value_page = args.value_page_stride * width;
  const auto nan = [](std::int64_t count) {
    return std::vector<std::uint64_t>(count / 8, ~std::uint64_t{0});
  };
  if (spec.cache_form == CacheForm::pointers) {
    // Pages backwards, each with something before K.
    args.key_offset = 16;
    args.value_offset = 16 + key_page;
    keys_ = nan(args.pages * (args.value_offset + value_page));
    for (std::int64_t page = args.pages - 1; page >= 0; --page) {
      addresses_.push_back(reinterpret_cast<std::uintptr_t>(keys_.data()) +
                           page * (args.value_offset + value_page));
    }
    args.page_addresses = addresses_.data();
    args.key_page_stride = args.value_page_stride = -77;
  } else {
    keys_ = nan(args.pages * key_page);
    values_ = nan(args.pages * value_page);
    args.keys = keys_.data();
    args.values = values_.data();
  }
  write_rows();

  const auto strides = codegen::cuda_generator().code_strides(spec, kKvHeads, args.page_tokens);
  args.code_page_stride = strides.page;
  args.code_head_stride = strides.head;
  args.code_plane_stride = strides.plane;
  codes.assign(args.pages * strides.page, 0);
  args.codes = codes.data();
}

void Problem::write_row(const void* array, std::int64_t offset, std::int64_t page, std::int64_t page_stride,
                        std::int64_t in_page, std::span<const float> row, float scale) {
  const int width = codegen::element_bytes(spec.kv_type);
  unsigned char* to =
      spec.cache_form == CacheForm::pointers
          ? reinterpret_cast<unsigned char*>(addresses_[page]) + offset
          : static_cast<unsigned char*>(const_cast<void*>(array)) + page * page_stride * width;
  std::ranges::copy(oracle::pack(config.kv_type, row, scale),
                    reinterpret_cast<std::byte*>(to + in_page * width));
}

void Problem::write_rows() {
  for (int b = 0; b < batch(); ++b) {
    const auto keys = sequences[b].key_rows(config, call), values = sequences[b].value_rows(config, call);
    for (int p = 0; p < lengths[b]; ++p) {
      const std::int64_t key = slot(b, p), value = value_slot(b, p), tokens = args.page_tokens;
      for (int head = 0; head < kKvHeads; ++head) {
        write_row(args.keys, args.key_offset, key / tokens, args.key_page_stride,
                  key % tokens * args.key_token_stride + head * args.key_head_stride, keys.at(p, head),
                  oracle::scale_of(call.key_scale, head));
        write_row(args.values, args.value_offset, value / tokens, args.value_page_stride,
                  value % tokens * args.value_token_stride + head * args.value_head_stride,
                  values.at(p, head), oracle::scale_of(call.value_scale, head));
      }
    }
  }
}

void Problem::lay_out_queries() {
  args.query_head_stride = spec.head_dim + 8;
  args.query_row_stride = query_heads() * args.query_head_stride;
  query_.assign(rows() * args.query_row_stride, kNan32);
  for (int row = 0; row < rows(); ++row) {
    const auto queries = sequences[row / spec.query_rows].query_rows(config, call);
    for (int head = 0; head < query_heads(); ++head) {
      for (int i = 0; i < spec.head_dim; ++i) {
        put(query_.data(), config.q_type, row * args.query_row_stride + head * args.query_head_stride + i,
            queries.at(row % spec.query_rows, head)[i]);
      }
    }
  }
  args.query = query_.data();
  args.out_head_stride = spec.value_dim;
  args.out_row_stride = query_heads() * args.out_head_stride + 8;
}

void Problem::make_burst(int first, int count) {
  for (int b = 0; b < batch(); ++b) {
    const auto queries = sequences[b].query_rows(config, call);
    for (int p = first; p < std::min(first + count, lengths[b]); ++p) {
      for (int head = 0; head < kKvHeads; ++head) {
        const int like = head * spec.group + p % spec.group;
        const auto query = queries.at(p % spec.query_rows, like);
        float* key = sequences[b].keys.data() + (std::int64_t{p} * kKvHeads + head) * spec.head_dim;
        std::ranges::copy(oracle::stored(config.kv_type, query, oracle::scale_of(call.key_scale, head)), key);
      }
    }
  }
  write_rows();
}

void Problem::make_infinite(int period) {
  for (int b = 0; b < batch(); ++b) {
    const auto queries = sequences[b].query_rows(config, call);
    for (int p = 0; p < lengths[b]; p += period) {
      for (int head = 0; head < kKvHeads; ++head) {
        const int element = p % spec.head_dim;
        sequences[b].keys[(std::int64_t{p} * kKvHeads + head) * spec.head_dim + element] =
            std::copysign(std::numeric_limits<float>::infinity(), -queries.at(0, head * spec.group)[element]);
      }
    }
  }
  write_rows();
}

std::int64_t Problem::slot_in(const std::vector<int>& table, int sequence, int position) const {
  const std::int64_t token = starts_[sequence] + position;
  if (spec.cache_form == CacheForm::contiguous) return sequence * args.page_tokens + token;
  const std::int64_t first = indptr_.empty() ? sequence * args.table_stride : indptr_[sequence];
  return table[first + token / args.page_tokens] * args.page_tokens + token % args.page_tokens;
}

std::int64_t Problem::slot(int sequence, int position) const { return slot_in(table_, sequence, position); }

std::int64_t Problem::value_slot(int sequence, int position) const {
  return slot_in(value_table_.empty() ? table_ : value_table_, sequence, position);
}

std::vector<double> Problem::out(int row, int query_head) const {
  std::vector<double> values;
  for (int i = 0; i < spec.value_dim; ++i) {
    values.push_back(
        get(out_, config.out_type, row * args.out_row_stride + query_head * args.out_head_stride + i));
  }
  return values;
}

void Problem::run(std::initializer_list<Stage> stages, int chunks, std::int64_t slot_count) {
  const codegen::Shape shape{.batch = batch(),
                             .kv_heads = kKvHeads,
                             .max_tokens = max_tokens,
                             .slots = slot_count,
                             .chunks = chunks,
                             .lists = args.counts != nullptr,
                             .processors = processors};
  args.chunks = chunks;
  args.count = slot_count;
  partial_.assign(static_cast<std::size_t>(rows()) * query_heads() * chunks * (spec.value_dim + 2),
                  std::numeric_limits<float>::quiet_NaN());
  args.partial = partial_.data();
  for (const Stage stage : stages) {
    launch(index, stage, codegen::cuda_generator().grid(stage, spec, tuning, shape), args);
  }
}

void Problem::encode() {
  std::vector<int> slots_of_tokens;
  for (int b = 0; b < batch(); ++b) {
    slots_of_tokens.push_back(-1);  // padding
    for (int p = 0; p < lengths[b]; ++p) {
      slots_of_tokens.push_back(static_cast<int>(slot(b, p)));
    }
  }
  args.slots = slots_of_tokens.data();
  run({Stage::encode}, 1, static_cast<std::int64_t>(slots_of_tokens.size()));
  args.slots = nullptr;
}

void Problem::encode_all() { run({Stage::encode}, 1, slots()); }

void Problem::export_codes() {
  bytes.assign(slots() * kKvHeads * spec.head_dim, 0xee);
  args.bytes = bytes.data();
  run({Stage::export_codes}, 1, slots());
}

void Problem::import_codes() { run({Stage::import_codes}, 1, slots()); }

void Problem::check_codes(bool mend) {
  bytes.assign(slots() * kKvHeads, 0xee);
  args.bytes = bytes.data();
  args.mend = mend ? 1 : 0;
  run({Stage::check_codes}, 1, slots());
}

void Problem::select(bool as_slots) {
  const std::size_t lists = static_cast<std::size_t>(rows()) * selections();
  query_codes.assign(static_cast<std::size_t>(rows()) * query_heads() * spec.head_dim, 99);
  scores.assign(lists * max_tokens, -7);
  out_positions.assign(lists * spec.budget, -7);
  out_counts.assign(lists, -7);
  args.query_codes = query_codes.data();
  args.out_scores = scores.data();
  args.out_positions = out_positions.data();
  args.out_counts = out_counts.data();
  args.write_slots = as_slots ? 1 : 0;
  args.out = nullptr;
  run({Stage::prepare_query, Stage::scan, Stage::select}, 1);
  args.query_codes = nullptr;
  args.out_scores = nullptr;
  args.out_positions = nullptr;
  args.out_counts = nullptr;
}

void Problem::prepare_decode(std::int64_t dense_below) {
  out_.assign(rows() * args.out_row_stride, kNan32);
  args.out = out_.data();
  lse.assign(static_cast<std::size_t>(rows()) * query_heads(), 77.0f);
  args.lse = lse.data();
  args.dense_below = dense_below;
  args.all_tokens = 0;
}

std::int64_t Problem::dense_chunks(std::int64_t tokens) const {
  return codegen::cuda_generator().dense_chunks(tuning, kKvHeads, tokens);
}

void Problem::decode_by_stages(std::int64_t dense_below) {
  prepare_decode(dense_below);
  args.skip_short_rows = 1;
  const auto selected = ceil_div(spec.budget, tuning.chunk);
  const auto short_row = dense_chunks(std::min(dense_below, max_tokens));
  run({Stage::prepare_query, Stage::scan, Stage::select, Stage::attend, Stage::merge},
      static_cast<int>(std::max(selected, short_row)));
  args.skip_short_rows = 0;
}

void Problem::sum_short_rows() {
  int* const given = args.counts;
  args.counts = nullptr;
  run({Stage::attend}, args.short_chunks);
  args.counts = given;
}

LaunchFacts Problem::decode_in_clusters(int blocks, std::int64_t dense_below, Lists lists) {
  prepare_decode(dense_below);
  std::ranges::fill(positions, -7);
  std::ranges::fill(counts, -7);
  if (lists == Lists::none) args.positions = args.counts = nullptr;
  args.write_slots = lists == Lists::slots ? 1 : 0;
  const auto short_row = static_cast<int>(dense_chunks(std::min(dense_below, max_tokens)));
  args.short_chunks = dense_below > spec.budget ? short_row : 0;
  if (args.short_chunks > 0) sum_short_rows();
  codegen::Tuning clusters = tuning;
  clusters.cluster = blocks;
  const codegen::Shape shape{.batch = batch(),
                             .kv_heads = kKvHeads,
                             .max_tokens = std::max(capacity, max_tokens),
                             .processors = processors};
  const auto grid = codegen::cuda_generator().decode_grid(spec, clusters, kTarget, shape);
  if (!grid) throw std::runtime_error("the decode unit has no grid for this shape");
  args.ring_stages = std::min(static_cast<int>(grid->ring_stages), most_ring_stages);
  args.smallest_part = static_cast<int>(grid->smallest_part);
  args.inbox_words = static_cast<int>(grid->inbox_words);
  args.chunks = static_cast<int>(grid->chunks);
  decoded_by = grid->stage;
  args.kv_heads = static_cast<int>(grid->y);
  args.max_tokens = shape.max_tokens;
  const LaunchFacts result = launch(index, grid->stage, *grid, args);
  args.kv_heads = kKvHeads;
  args.max_tokens = max_tokens;
  args.short_chunks = 0;
  args.positions = positions.data();
  args.counts = counts.data();
  return result;
}

void Problem::dense() {
  out_.assign(rows() * args.out_row_stride, kNan32);
  args.out = out_.data();
  args.all_tokens = 1;
  run({Stage::attend, Stage::merge}, static_cast<int>(dense_chunks(max_tokens)));
  args.all_tokens = 0;
}

void Problem::attend() {
  out_.assign(rows() * args.out_row_stride, kNan32);
  args.out = out_.data();
  args.dense_below = 0;
  run({Stage::attend, Stage::merge}, static_cast<int>(ceil_div(spec.budget, tuning.chunk)));
}

}  // namespace adamas::cuda_emulation
