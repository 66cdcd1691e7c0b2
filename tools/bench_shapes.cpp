// Shapes and presets of bench: see bench_shapes.hpp.
#include "tools/bench_shapes.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>
#include <string_view>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;

constexpr std::int64_t kMostTokens = std::int64_t{1} << 30,
                       kMostSequences = 65535;  // adamas_capacity's limits
constexpr std::string_view kExample = "example: \"batch=1,16 kv_heads=8 tokens=32768,1024..65536\"";

std::int64_t parse_number(const std::string& field, std::string_view text, std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || value < 1 || value > most) {
    throw Error(ADAMAS_INVALID_ARGUMENT, field, std::string(text),
                fmt::format("must be an integer in 1..{}", most), std::string(kExample));
  }
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> items;
  std::stringstream stream(text);
  for (std::string item; std::getline(stream, item, separator);)
    items.push_back(item);
  return items;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  std::stringstream stream(text);
  for (std::string word; stream >> word;)
    words.push_back(word);
  return words;
}

std::vector<std::int64_t> parse_list(const std::string& field, const std::string& text, std::int64_t most) {
  std::vector<std::int64_t> values;
  for (const std::string& item : split(text, ','))
    values.push_back(parse_number(field, item, most));
  if (values.empty()) parse_number(field, "", most);
  return values;
}

/// Tokens of each sequence: the same, or spread between two bounds.
struct TokenRange {
  std::int64_t low = 32768, high = 32768;
};

std::vector<TokenRange> parse_tokens(const std::string& text) {
  const std::string field = "shapes.tokens";
  std::vector<TokenRange> ranges;
  for (const std::string& item : split(text, ',')) {
    const auto dots = item.find("..");
    const std::int64_t low = parse_number(field, item.substr(0, dots), kMostTokens);
    const std::int64_t high =
        dots == item.npos ? low : parse_number(field, item.substr(dots + 2), kMostTokens);
    if (low > high || (dots != item.npos && low == high)) {
      throw Error(ADAMAS_INVALID_ARGUMENT, field, item, "must rise from its first bound to its second",
                  std::string(kExample));
    }
    ranges.push_back({low, high});
  }
  if (ranges.empty()) parse_number(field, "", kMostTokens);
  return ranges;
}

void parse_group(const std::string& text, std::vector<BenchShape>& shapes) {
  std::vector<std::int64_t> batches{1}, heads{8};
  std::vector<TokenRange> tokens{{}};
  for (const std::string& word : words_of(text)) {
    const auto equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const std::string list = equals == word.npos ? "" : word.substr(equals + 1);
    if (key == "batch") {
      batches = parse_list("shapes.batch", list, kMostSequences);
    } else if (key == "kv_heads") {
      heads = parse_list("shapes.kv_heads", list, kMostSequences);
    } else if (key == "tokens") {
      tokens = parse_tokens(list);
    } else {
      throw Error(ADAMAS_INVALID_ARGUMENT, "shapes", word, "must be batch=, kv_heads= or tokens= and a list",
                  std::string(kExample));
    }
  }
  for (const auto batch : batches) {
    for (const auto kv_heads : heads) {
      for (const auto [low, high] : tokens) {
        const int b = static_cast<int>(batch), h = static_cast<int>(kv_heads);
        shapes.push_back(low == high ? even_shape(b, h, high) : ragged_shape(b, h, low, high));
      }
    }
  }
}

}  // namespace

std::int64_t BenchShape::total_tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

std::string BenchShape::tokens_text() const {
  if (!ragged) return fmt::to_string(lengths.front());
  const auto [low, high] = std::minmax_element(lengths.begin(), lengths.end());
  return fmt::format("{}..{}", *low, *high);
}

BenchShape even_shape(int batch, int kv_heads, std::int64_t tokens) {
  return {.kv_heads = kv_heads,
          .lengths = std::vector<std::int64_t>(static_cast<std::size_t>(batch), tokens),
          .capacity = tokens,
          .ragged = false};
}

BenchShape ragged_shape(int batch, int kv_heads, std::int64_t low, std::int64_t high) {
  BenchShape shape{.kv_heads = kv_heads, .lengths = {}, .capacity = high, .ragged = true};
  const double ratio = static_cast<double>(high) / static_cast<double>(low);
  for (int i = 0; i < batch; ++i) {
    const double share = batch == 1 ? 1 : static_cast<double>(i) / (batch - 1);
    shape.lengths.push_back(std::llround(static_cast<double>(low) * std::pow(ratio, share)));
  }
  std::mt19937_64 random(1);
  for (std::size_t left = shape.lengths.size(); left > 1; --left)  // std::shuffle differs between libraries
    std::swap(shape.lengths[left - 1], shape.lengths[random() % left]);
  return shape;
}

std::vector<BenchShape> parse_shapes(const std::string& text) {
  std::vector<BenchShape> shapes;
  for (const std::string& group : split(text, ';'))
    parse_group(group, shapes);
  if (shapes.empty()) parse_group("", shapes);
  return shapes;
}

std::vector<std::int64_t> parse_budgets(const std::string& text) {
  return parse_list("budgets", text, std::numeric_limits<int>::max());
}

const std::vector<BenchPreset>& bench_presets() {
  // paper: the shapes of the paper's figure, no query heads that share K/V. serving: today's models.
  static const std::vector<BenchPreset> presets{
      {.name = "paper",
       .spec = "head_dim=128 group=1 budget=128 page_size=64",
       .shapes = "batch=1 kv_heads=32 tokens=8192,16384,32768,131072",
       .budgets = "128,256"},
      {.name = "serving",
       .spec = "head_dim=128 group=4 budget=128 page_size=64",
       .shapes = "batch=1 kv_heads=8 tokens=32768,131072; batch=16 kv_heads=8 tokens=32768; "
                 "batch=32 kv_heads=8 tokens=1024..65536",
       .budgets = "128"},
  };
  return presets;
}

const BenchPreset& bench_preset(const std::string& name) {
  std::vector<std::string> names;
  for (const BenchPreset& preset : bench_presets()) {
    if (preset.name == name) return preset;
    names.push_back(preset.name);
  }
  throw Error(ADAMAS_INVALID_ARGUMENT, "preset", name, fmt::format("must be {}", fmt::join(names, " or ")));
}

std::string merge_spec(const std::string& base, const std::string& changes) {
  std::vector<std::string> words;
  for (const std::string& word : words_of(base)) {
    if (!names_key(changes, word.substr(0, word.find('=')))) words.push_back(word);
  }
  for (const std::string& word : words_of(changes))
    words.push_back(word);
  return fmt::format("{}", fmt::join(words, " "));
}

bool names_key(const std::string& spec, const std::string& key) {
  const auto words = words_of(spec);
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return word.substr(0, word.find('=')) == key; });
}

}  // namespace adamas::tools
