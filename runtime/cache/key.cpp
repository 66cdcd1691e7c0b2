// CacheKey: the text that identifies a binary, and its digest.
#include <string_view>

#include "runtime/cache/cache.hpp"
#include "runtime/cache/digest.hpp"

namespace adamas::runtime {
namespace {

/// Raise it when the meaning of a field changes: older entries are then never found.
constexpr std::string_view kKeySchema = "adamas key 1";

}  // namespace

std::string CacheKey::text() const {
  std::string text;
  // With its length in front, no field can run into the next one.
  const auto add = [&text](std::string_view field) {
    text += std::to_string(field.size());
    text += ':';
    text += field;
    text += '\n';
  };
  add(kKeySchema);
  add(unit);
  add(spec);
  add(tuning);
  add(source);
  add(target);
  add(std::to_string(options.size()));
  for (const std::string& option : options)
    add(option);
  return text;
}

std::string CacheKey::digest() const { return hex(digest_of(text())); }

}  // namespace adamas::runtime
