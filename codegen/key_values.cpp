// Splitting `key=value` text and checking its values. No default and no rule of Spec or Tuning is known here.
#include "codegen/key_values.hpp"

#include <sstream>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::codegen {
namespace {

constexpr std::string_view kBlanks = " \t\r\n\v\f";

/// "a, b or c"
template <class T>
std::string listed(std::span<const T> items) {
  std::string text;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) text += i + 1 == items.size() ? " or " : ", ";
    text += fmt::format("{}", items[i]);
  }
  return text;
}

/// Levenshtein distance, one row of the table at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

/// The integer written in `text`, saturated to 64 bits; nothing if it is not one.
std::optional<std::int64_t> integer_in(std::string_view text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, status] = std::from_chars(text.data(), end, number);
  if (stop != end || status == std::errc::invalid_argument) return std::nullopt;
  if (status == std::errc::result_out_of_range) {
    using Limits = std::numeric_limits<std::int64_t>;
    return text.front() == '-' ? Limits::min() : Limits::max();
  }
  return number;
}

[[noreturn]] void refuse_non_integer(std::string_view key, std::string_view value, std::string_view rule) {
  throw Error(ADAMAS_INVALID_SPEC, std::string(key), std::string(value),
              "is not an integer: " + std::string(rule));
}

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;)
    words.push_back(word);
  return words;
}

KeyValues::KeyValues(std::string_view what, std::string_view text, std::span<const std::string_view> keys) {
  for (std::size_t at = text.find_first_not_of(kBlanks); at != text.npos;) {
    const std::size_t end = std::min(text.find_first_of(kBlanks, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = text.find_first_not_of(kBlanks, end);

    const std::size_t equals = word.find('=');
    const std::string key(word.substr(0, equals));
    const bool known = std::ranges::find(keys, key) != keys.end();
    if (equals == word.npos) {
      throw Error(ADAMAS_INVALID_SPEC, key, "", fmt::format("a {} is written key=value", what),
                  fmt::format("nearest key: {}=", nearest_name(key, keys)));
    }
    const std::string value(word.substr(equals + 1));
    if (!known) {
      throw Error(ADAMAS_INVALID_SPEC, key, value, fmt::format("is not a key of a {}", what),
                  fmt::format("nearest key: {}", nearest_name(key, keys)));
    }
    const auto [entry, is_new] = values_.emplace(key, value);
    if (!is_new) {
      throw Error(ADAMAS_INVALID_SPEC, key, value, "is given twice",
                  fmt::format("keep one; the first was {}={}", key, entry->second));
    }
  }
}

const std::string* KeyValues::find(std::string_view key) const {
  const auto entry = values_.find(key);
  return entry == values_.end() ? nullptr : &entry->second;
}

bool IntegerRange::contains(std::int64_t value) const {
  return value >= min && value <= max && value % step == 0;
}

std::int64_t IntegerRange::nearest(std::int64_t value) const {
  const std::int64_t inside = std::clamp(value, min, max);
  return (inside + step / 2) / step * step;
}

std::string IntegerRange::rule() const {
  std::string text = min == max ? fmt::format("must be {}", min) : fmt::format("must be {}..{}", min, max);
  if (step > 1) text += fmt::format(", a multiple of {}", step);
  return text;
}

int parse_integer(std::string_view key, std::string_view value, IntegerRange range) {
  const auto number = integer_in(value);
  if (!number) refuse_non_integer(key, value, range.rule());
  if (!range.contains(*number)) refuse(key, value, range.rule(), std::to_string(range.nearest(*number)));
  return static_cast<int>(*number);
}

int parse_choice(std::string_view key, std::string_view value, std::span<const int> choices) {
  const std::string rule = "must be " + listed(choices);
  const auto number = integer_in(value);
  if (!number) refuse_non_integer(key, value, rule);
  const int nearest = nearest_choice(*number, choices);
  if (nearest != *number) refuse(key, value, rule, std::to_string(nearest));
  return nearest;
}

bool parse_switch(std::string_view key, std::string_view value) {
  if (value == "on" || value == "off") return value == "on";
  // What people write for "off" elsewhere: OFF, false, 0, no.
  const bool means_off =
      value.find_first_of("fF0") != value.npos || value.starts_with('n') || value.starts_with('N');
  refuse(key, value, "must be on or off", means_off ? "off" : "on");
}

std::size_t parse_name(std::string_view key, std::string_view value,
                       std::span<const std::string_view> names) {
  const auto found = std::ranges::find(names, value);
  if (found == names.end()) refuse(key, value, "must be " + listed(names), nearest_name(value, names));
  return static_cast<std::size_t>(found - names.begin());
}

std::string_view nearest_name(std::string_view word, std::span<const std::string_view> names) {
  return *std::ranges::min_element(names, {},
                                   [&](std::string_view name) { return edit_distance(word, name); });
}

int nearest_choice(std::int64_t value, std::span<const int> choices) {
  const std::int64_t inside = std::clamp<std::int64_t>(value, choices.front(), choices.back());
  int best = choices.front();
  for (const int choice : choices) {
    if (std::abs(choice - inside) <= std::abs(best - inside)) best = choice;
  }
  return best;
}

void refuse(std::string_view key, std::string_view value, std::string_view rule, std::string_view nearest) {
  throw Error(ADAMAS_INVALID_SPEC, std::string(key), std::string(value), std::string(rule),
              "nearest valid value: " + std::string(nearest));
}

}  // namespace adamas::codegen
