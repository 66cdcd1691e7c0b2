// Reads `key=value key=value` text, the form of Spec, Tuning and the tools' shape lists, and checks single
// values. Every function here throws Error(ADAMAS_INVALID_SPEC) with the key, the value, the rule and the way
// out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adamas::codegen {

/// What white space separates.
std::vector<std::string> words_of(std::string_view text);

class KeyValues {
 public:
  /// Splits at white space, then at the first '='.
  /// @param what  what the text is, for errors ("Spec")
  /// @param keys  every key there is
  /// @throws Error for a word without '=', an unknown key (the nearest known one in the hint) or a repeated
  /// key.
  KeyValues(std::string_view what, std::string_view text, std::span<const std::string_view> keys);

  /// The value given for `key`, or null.
  const std::string* find(std::string_view key) const;

 private:
  std::map<std::string, std::string, std::less<>> values_;
};

/// Integers min, min + step, ... max; min and max are multiples of step.
struct IntegerRange {
  std::int64_t min, max, step = 1;

  bool contains(std::int64_t value) const;
  std::int64_t nearest(std::int64_t value) const;  ///< ties go up
  std::string rule() const;                        ///< "must be 16..512, a multiple of 16"
};

/// A decimal integer of the range. A number too large for 64 bits is as wrong as any other outside the range.
int parse_integer(std::string_view key, std::string_view value, IntegerRange range);

/// An integer out of a short ascending list; ties of the nearest go up.
int parse_choice(std::string_view key, std::string_view value, std::span<const int> choices);

/// "on" or "off".
bool parse_switch(std::string_view key, std::string_view value);

/// Index of `value` in `names`.
std::size_t parse_name(std::string_view key, std::string_view value, std::span<const std::string_view> names);

/// The name with the smallest edit distance to `word`, the first of several. `names` must not be empty.
std::string_view nearest_name(std::string_view word, std::span<const std::string_view> names);

/// The integer of an ascending list that is nearest to `value`; ties go up. `choices` must not be empty.
int nearest_choice(std::int64_t value, std::span<const int> choices);

/// Throws the error of a value that breaks `rule`, with "nearest valid value: ..." as its hint.
[[noreturn]] void refuse(std::string_view key, std::string_view value, std::string_view rule,
                         std::string_view nearest);

}  // namespace adamas::codegen
