// Random caches on a device: see bench_data.hpp.
#include "tools/bench_data.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "codegen/error.hpp"

namespace adamas::tools {
namespace {

using codegen::ElementType;
using codegen::Error;

constexpr int kMostSets = 512;  // short sequences would need more than there is use for

// Device memory is filled with pieces of a pool: a generator would take longer than the bench.
constexpr std::int64_t kPoolBytes = std::int64_t{64} << 20, kPieceBytes = std::int64_t{4} << 20;
constexpr std::int64_t kShiftBytes =
    16;  // pieces start anywhere: the same piece of the pool gives other rows
constexpr std::int64_t kBurst = 256;

constexpr float kScale = 0.75F;  ///< of e4m3 elements

/// An e4m3 float not beyond a value that has no subnormal bits; NaN never.
std::uint32_t e4m3_below(std::uint32_t bits) {
  const std::uint32_t exponent = bits >> 23 & 255;
  return exponent <= 120 ? 0 : (bits >> 24 & 0x80) | (exponent - 120) << 3 | (bits >> 20 & 7);
}

/// q8_0 blocks of about normal values.
std::vector<std::byte> random_blocks(std::size_t blocks, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0F, 48.0F);
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < blocks; ++i) {
    constexpr std::uint16_t kSixtyFourth = 0x2400;  // f16
    bytes.push_back(static_cast<std::byte>(kSixtyFourth & 255));
    bytes.push_back(static_cast<std::byte>(kSixtyFourth >> 8));
    for (int e = 0; e < 32; ++e) {
      const float value = std::clamp(std::round(normal(random)), -127.0F, 127.0F);
      bytes.push_back(static_cast<std::byte>(static_cast<std::int8_t>(value)));
    }
  }
  return bytes;
}

/// About normal values in steps of 1/64, which 16-bit and 32-bit types hold exactly.
/// @param units  elements, or blocks of them
std::vector<std::byte> random_elements(std::size_t units, ElementType type, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0F, 48.0F);
  constexpr std::size_t kValues = std::size_t{1} << 20, kRun = 512;
  const auto width = static_cast<std::size_t>(codegen::storage_unit(type).bytes);
  std::vector<std::byte> values(std::min(units, kValues) * width);
  if (type == ElementType::q8_0) values = random_blocks(std::min(units, kValues), random);
  for (std::size_t at = 0; type != ElementType::q8_0 && at < values.size(); at += width) {
    const float value = std::clamp(std::round(normal(random)), -127.0F, 127.0F) / 64.0F;
    const auto bits = std::bit_cast<std::uint32_t>(value);
    std::uint32_t stored = bits;
    if (type == ElementType::bf16) stored = bits >> 16;
    if (type == ElementType::f8e4m3fn) stored = e4m3_below(bits);
    if (type == ElementType::f16) {
      stored =
          value == 0 ? 0 : (bits >> 16 & 0x8000) | ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023);
    }
    std::memcpy(values.data() + at, &stored, width);
  }
  if (units <= kValues) return values;
  std::vector<std::byte> cut(units * width);
  for (std::size_t at = 0; at < units; at += kRun) {
    const std::size_t run = std::min(kRun, units - at);
    std::memcpy(cut.data() + at * width, values.data() + random() % (kValues - kRun) * width, run * width);
  }
  return cut;
}

/// Rows of one tensor, from which a device's memory is filled.
class Pool {
 public:
  /// @param row  units of one token
  Pool(const Context& context, const runtime::Device& device, ElementType type, std::int64_t row,
       KeyPattern pattern, std::mt19937_64& random)
      : device_(device),
        random_(random),
        row_bytes_(row * codegen::storage_unit(type).bytes),
        rows_(std::max<std::int64_t>(kPoolBytes / row_bytes_, 1)),
        shift_(pattern == KeyPattern::random && type != ElementType::q8_0 ? kShiftBytes : row_bytes_),
        memory_(context.upload<std::byte>(host_rows(type, row, pattern))) {}

  /// Enqueues the copies. @param tokens  rows of `to`
  void fill(const Buffer<std::byte>& to, std::int64_t tokens) const {
    const std::int64_t piece = std::clamp<std::int64_t>(kPieceBytes / row_bytes_, 1, rows_);
    for (std::int64_t at = 0; at < tokens; at += piece) {
      const std::int64_t bytes = std::min(piece, tokens - at) * row_bytes_;
      const auto places = static_cast<std::uint64_t>((rows_ * row_bytes_ - bytes) / shift_ + 1);
      const auto from = static_cast<std::int64_t>(random_() % places) * shift_;
      device_.copy_on_device(to.data() + at * row_bytes_, memory_.data() + from,
                             static_cast<std::uint64_t>(bytes), nullptr);
    }
  }

 private:
  std::vector<std::byte> host_rows(ElementType type, std::int64_t row, KeyPattern pattern) const {
    const std::int64_t run = pattern == KeyPattern::random   ? 1
                             : pattern == KeyPattern::bursts ? kBurst
                                                             : rows_;
    const std::int64_t different = (rows_ + run - 1) / run;
    auto rows = random_elements(static_cast<std::size_t>(different * row), type, random_);
    if (run == 1) return rows;
    std::vector<std::byte> repeated(static_cast<std::size_t>(rows_ * row_bytes_));
    for (std::int64_t r = 0; r < rows_; ++r) {
      std::memcpy(repeated.data() + r * row_bytes_, rows.data() + r / run * row_bytes_,
                  static_cast<std::size_t>(row_bytes_));
    }
    return repeated;
  }

  const runtime::Device& device_;
  std::mt19937_64& random_;
  std::int64_t row_bytes_, rows_, shift_;
  Buffer<std::byte> memory_;
};

std::vector<std::byte> random_queries(const codegen::Spec& spec, const BenchLayout& layout) {
  std::mt19937_64 random(4);
  const std::size_t heads = layout.lengths.size() * spec.query_rows * layout.capacity.kv_heads * spec.group;
  return random_elements(heads * spec.head_dim, spec.q_type, random);
}

/// [kv_heads, buckets - 1]: about even shares of what random_elements gives.
std::vector<float> even_thresholds(const codegen::Spec& spec, int kv_heads) {
  std::vector<float> points;
  for (int head = 0; head < kv_heads; ++head) {
    for (int i = 1; i < spec.buckets; ++i)
      points.push_back((static_cast<float>(2 * i) / static_cast<float>(spec.buckets) - 1) * 1.2F);
  }
  return points;
}

std::int64_t pages_for(std::int64_t tokens, std::int64_t page) { return (tokens + page - 1) / page; }

/// Whole pages for each sequence, their numbers in order or shuffled.
void lay_out_pages(BenchLayout& layout, std::int64_t page, bool scattered) {
  std::int64_t pages = 0;
  for (const std::int32_t length : layout.lengths)
    pages += pages_for(length, page);
  std::vector<std::int32_t> order(static_cast<std::size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(2);
  for (std::size_t left = order.size(); scattered && left > 1; --left)
    std::swap(order[left - 1], order[random() % left]);

  layout.page_tokens = page;
  layout.slots = pages * page;
  layout.capacity.max_slots = layout.slots;
  layout.table_stride = pages_for(layout.capacity.max_tokens, page);
  layout.table.assign(layout.lengths.size() * static_cast<std::size_t>(layout.table_stride), 0);
  auto next = order.begin();
  for (std::size_t b = 0; b < layout.lengths.size(); ++b) {
    const std::int64_t own = pages_for(layout.lengths[b], page);
    const auto row = layout.table.begin() + static_cast<std::ptrdiff_t>(b) * layout.table_stride;
    std::copy_n(next, own, row);
    next += own;
    const std::int64_t last = layout.lengths[b] - 1;
    layout.last_slots.push_back(static_cast<std::int32_t>(row[last / page] * page + last % page));
  }
}

/// The table's rows as ranges of entries.
std::vector<std::int32_t> row_ranges(const BenchLayout& layout) {
  std::vector<std::int32_t> ranges;
  for (std::size_t b = 0; b <= layout.lengths.size(); ++b)
    ranges.push_back(static_cast<std::int32_t>(static_cast<std::int64_t>(b) * layout.table_stride));
  return ranges;
}

/// One row of max_tokens slots a sequence; packed where the lengths differ from it.
void lay_out_rows(BenchLayout& layout) {
  const std::int64_t row = layout.capacity.max_tokens;
  const bool full = std::all_of(layout.lengths.begin(), layout.lengths.end(),
                                [row](std::int32_t length) { return length == row; });
  for (const std::int32_t length : layout.lengths) {
    if (!full) layout.starts.push_back(static_cast<std::int32_t>(layout.slots));
    layout.slots += length;
    layout.last_slots.push_back(static_cast<std::int32_t>(layout.slots - 1));
  }
  layout.page_tokens = full ? row : layout.slots;
  if (!full) layout.capacity.max_slots = layout.slots;
}

}  // namespace

KeyPattern key_pattern(const std::string& name) {
  if (name == "random") return KeyPattern::random;
  if (name == "bursts") return KeyPattern::bursts;
  if (name == "ties") return KeyPattern::ties;
  throw Error(ADAMAS_INVALID_ARGUMENT, "keys", name, "must be random, bursts or ties");
}

BenchLayout lay_out(const codegen::Spec& spec, const BenchShape& shape, bool scattered) {
  BenchLayout layout;
  layout.capacity.max_batch = shape.batch();
  layout.capacity.kv_heads = shape.kv_heads;
  layout.capacity.max_tokens = shape.capacity;
  for (const std::int64_t length : shape.lengths)
    layout.lengths.push_back(static_cast<std::int32_t>(length));
  if (spec.cache_form == codegen::CacheForm::pointers) {
    throw Error(ADAMAS_UNSUPPORTED, "cache_form", "pointers", "is not timed", "time cache_form=block_table");
  }
  if (const int page = codegen::facts_of(spec).page_tokens; page > 0) {
    lay_out_pages(layout, page, scattered);
  } else {
    lay_out_rows(layout);
  }
  return layout;
}

int rotated_sets(double step_bytes, double set_bytes, double cold_bytes, double memory_bytes) {
  const double wanted = 1 + std::ceil(cold_bytes / step_bytes);
  const double fitting = std::max(1.0, std::floor(memory_bytes / set_bytes));
  return static_cast<int>(std::min({wanted, fitting, static_cast<double>(kMostSets)}));
}

BenchData::BenchData(const Context& context, const runtime::Device& device, const codegen::Spec& spec,
                     const Kernel& kernel, const BenchLayout& layout, int sets, KeyPattern keys)
    : spec_(spec),
      key_head_(spec.head_dim / codegen::storage_unit(spec.kv_type).elements),
      value_head_(spec.value_dim / codegen::storage_unit(spec.kv_type).elements),
      key_token_(layout.capacity.kv_heads * key_head_),
      value_token_(layout.capacity.kv_heads * value_head_),
      page_tokens_(layout.page_tokens),
      slots_(layout.slots),
      table_stride_(layout.table_stride),
      packed_(!layout.starts.empty()),
      query_(context.upload<std::byte>(random_queries(spec, layout))),
      out_(context.allocate<std::byte>(layout.lengths.size() * spec.query_rows * layout.capacity.kv_heads *
                                       spec.group * spec.value_dim * codegen::element_bytes(spec.out_type))),
      table_(context.upload<std::int32_t>(layout.table)),
      indptr_(context.upload<std::int32_t>(row_ranges(layout))),
      starts_(context.upload<std::int32_t>(layout.starts)),
      lengths_(context.upload<std::int32_t>(layout.lengths)),
      last_slots_(context.upload<std::int32_t>(layout.last_slots)),
      thresholds_(context.upload<float>(even_thresholds(spec, layout.capacity.kv_heads))),
      scales_(context.upload<float>(std::vector{kScale})),
      sinks_(context.upload<float>(
          std::vector<float>(static_cast<std::size_t>(layout.capacity.kv_heads * spec.group), 0.0F))) {
  std::mt19937_64 random(3);
  const Pool key_pool(context, device, spec.kv_type, key_token_, keys, random);
  const Pool value_pool(context, device, spec.kv_type, value_token_, KeyPattern::random, random);
  const auto slots = static_cast<std::size_t>(slots_);
  const auto width = static_cast<std::size_t>(codegen::storage_unit(spec.kv_type).bytes);
  for (int i = 0; i < sets; ++i) {
    sets_.push_back({context.allocate<std::byte>(slots * static_cast<std::size_t>(key_token_) * width),
                     context.allocate<std::byte>(slots * static_cast<std::size_t>(value_token_) * width),
                     context.allocate<std::byte>(kernel.info().code_bytes)});
    key_pool.fill(sets_.back().key, slots_);
    value_pool.fill(sets_.back().value, slots_);
    kernel.encode(encode_all(i));
  }
  context.synchronize();
}

Cache BenchData::cache(const Set& set) const {
  return {.key = set.key.data(),
          .value = set.value.data(),
          .key_page_stride = key_token_ * page_tokens_,
          .key_token_stride = key_token_,
          .key_head_stride = key_head_,
          .value_page_stride = value_token_ * page_tokens_,
          .value_token_stride = value_token_,
          .value_head_stride = value_head_,
          .table = table_.data(),
          .table_stride = spec_.cache_form == codegen::CacheForm::csr
                              ? static_cast<std::int64_t>(table_.size())
                              : table_stride_,
          .indptr = indptr_.data(),
          .value_table = table_.data(),
          .key_scale = scales_.data(),
          .value_scale = scales_.data()};
}

Call BenchData::call(int step) const {
  const Set& used = set(step);
  return {.query = query_.data(),
          .cache = cache(used),
          .codes = used.codes.data(),
          .lengths = lengths_.data(),
          .starts = packed_ ? starts_.data() : nullptr,
          .query_thresholds = thresholds_.data(),
          .soft_cap = spec_.soft_cap ? 30.0F : 0.0F,
          .window = spec_.window ? kBenchWindow : 0,
          .sink_logits = sinks_.data(),
          .out = out_.data()};
}

EncodeArgs BenchData::encode_all(int step) const {
  const Set& used = set(step);
  return {.cache = cache(used),
          .codes = used.codes.data(),
          .count = slots_,
          .key_thresholds = thresholds_.data()};
}

EncodeArgs BenchData::encode_last(int step) const {
  EncodeArgs args = encode_all(step);
  args.slots = last_slots_.data();
  args.count = static_cast<std::int64_t>(last_slots_.size());
  return args;
}

}  // namespace adamas::tools
