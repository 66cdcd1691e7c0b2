// Counters of the cache, added up; and sizes as people write them.
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "runtime/cache/cache.hpp"

namespace adamas::runtime {
namespace {

constexpr std::array kCounters{
    &CacheCounters::hits_memory, &CacheCounters::hits_pack, &CacheCounters::hits_disk,     &CacheCounters::misses,
    &CacheCounters::compiles,    &CacheCounters::waits,     &CacheCounters::wait_timeouts, &CacheCounters::rejected,
    &CacheCounters::pruned,      &CacheCounters::fallbacks,
};
static_assert(sizeof(CacheCounters) == kCounters.size() * sizeof(std::uint64_t), "each is in the list");

}  // namespace

CacheCounters& CacheCounters::operator+=(const CacheCounters& more) {
  for (const auto counter : kCounters)
    this->*counter += more.*counter;
  return *this;
}

CacheCounters CacheCounters::operator-(const CacheCounters& less) const {
  CacheCounters difference = *this;
  for (const auto counter : kCounters)
    difference.*counter -= less.*counter;
  return difference;
}

std::optional<std::uint64_t> parse_bytes(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value, std::chars_format::fixed);
  if (error != std::errc() || !(value >= 0)) return std::nullopt;
  std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  while (unit.starts_with(' '))
    unit.remove_prefix(1);
  constexpr std::string_view kPowers = "KMGT";
  int power = 0;
  if (!unit.empty() && unit != "B") {
    const std::size_t found = kPowers.find(static_cast<char>(unit.front() & ~0x20));
    if (found == kPowers.npos) return std::nullopt;
    unit.remove_prefix(1);
    if (!unit.empty() && unit != "B" && unit != "iB") return std::nullopt;
    power = static_cast<int>(found) + 1;
  }
  const double bytes = std::ldexp(value, 10 * power);
  constexpr double kLimit = 9.0e18;
  return bytes < kLimit ? std::optional(static_cast<std::uint64_t>(bytes)) : std::nullopt;
}

}  // namespace adamas::runtime
