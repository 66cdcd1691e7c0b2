// Texts for people: see text.hpp.
#include "tools/text.hpp"

#include <fmt/ranges.h>

#include <array>
#include <cstdio>
#include <sstream>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/spec.hpp"

namespace adamas::tools {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit)
    value /= 1024;
  return fmt::format("{:.{}f} {}", value, value < 100 ? 1 : 0, kUnits[unit]);
}

std::string human_milliseconds(double milliseconds) {
  if (milliseconds >= 1000) return fmt::format("{:.2f} s", milliseconds / 1000);
  return fmt::format("{:.{}f} ms", milliseconds, milliseconds >= 100 ? 0 : milliseconds >= 10 ? 1 : 2);
}

std::string short_spec(const std::string& canonical) {
  std::vector<std::string> words;
  std::istringstream stream(canonical);
  for (std::string word; stream >> word;)
    words.push_back(word);
  try {
    // Defaults depend on other keys, so the parser is asked about each one.
    const codegen::Spec meant = codegen::Spec::parse(canonical);
    for (std::size_t i = words.size(); i-- > 0;) {
      std::vector<std::string> fewer = words;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      try {
        if (codegen::Spec::parse(fmt::format("{}", fmt::join(fewer, " "))) == meant) words = std::move(fewer);
      } catch (const codegen::Error&) {
        // Without this key the others contradict each other: it stays.
      }
    }
  } catch (const codegen::Error&) {
    return canonical;
  }
  return words.empty() ? "(defaults)" : fmt::format("{}", fmt::join(words, " "));
}

std::string short_target(const std::string& target) {
  const std::size_t first = target.find(':');
  return first == target.npos ? target : target.substr(0, target.find(':', first + 1));
}

std::string totals_text(const runtime::CacheCounters& counters) {
  std::string text = fmt::format("{} compiled; found {} in memory, {} in packs, {} in the folder", counters.compiles,
                                 counters.hits_memory, counters.hits_pack, counters.hits_disk);
  const auto add = [&text](std::uint64_t count, const char* what) {
    if (count != 0) text += fmt::format("; {} {}", count, what);
  };
  add(counters.waits, "waits for another process");
  add(counters.wait_timeouts, "of them given up");
  add(counters.fallbacks, "kernels handed out dense");
  add(counters.rejected, "refused by the loader");
  add(counters.pruned, "pruned");
  return text;
}

runtime::LogFn warnings_to_stderr() {
  return [](runtime::LogLevel level, const std::string& message) {
    if (level == runtime::LogLevel::warning) std::fprintf(stderr, "adamas: warning: %s\n", message.c_str());
  };
}

}  // namespace adamas::tools
