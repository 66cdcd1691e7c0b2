// `adamas cache`: the subcommands that look at the folder as a whole, and what all of them share.
#include "tools/cache.hpp"

#include <fmt/chrono.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <memory>
#include <sstream>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/pack.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using nlohmann::ordered_json;

ordered_json json_of(const runtime::CacheTotals& totals) {
  return {{"since_us", totals.since_us},       {"compiles", totals.compiles},
          {"hits_memory", totals.hits_memory}, {"hits_pack", totals.hits_pack},
          {"hits_folder", totals.hits_disk},   {"misses", totals.misses},
          {"waits", totals.waits},             {"wait_timeouts", totals.wait_timeouts},
          {"rejected", totals.rejected},       {"pruned", totals.pruned},
          {"fallbacks", totals.fallbacks}};
}

int stats(bool json) {
  const runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  const runtime::CacheStats found = cache.stats();
  const runtime::CacheTotals totals = cache.totals();
  if (json) {
    ordered_json packs = ordered_json::array();
    for (const auto& pack : cache.packs())
      packs.push_back({{"path", pack->path()}, {"entries", pack->entries()}, {"bytes", pack->bytes()}});
    print_json({{"directory", cache.directory()},
                {"entries", found.entries},
                {"bytes", found.bytes},
                {"max_bytes", cache.max_bytes()},
                {"totals", json_of(totals)},
                {"packs", std::move(packs)}});
    return 0;
  }
  Table table({"where", "entries", "size", "cap"});
  for (const auto& pack : cache.packs())
    table.add({pack->path(), fmt::to_string(pack->entries()), human_bytes(pack->bytes()), "—"});
  table.add({cache.directory(), fmt::to_string(found.entries), human_bytes(found.bytes),
             cache.max_bytes() == 0 ? "none" : human_bytes(cache.max_bytes())});
  table.print();
  if (totals.since_us != 0)
    std::printf("\nsince %s: %s\n", when(totals.since_us).c_str(), totals_text(totals).c_str());
  return 0;
}

struct PruneOptions {
  std::string size, unused_for;
  bool json = false;
};

int prune(const PruneOptions& options) {
  std::optional<std::uint64_t> max_bytes;
  if (!options.size.empty()) {
    max_bytes = runtime::parse_bytes(options.size);
    if (!max_bytes)
      throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "size", options.size, "must be a number of bytes such as 512M");
  } else if (!options.unused_for.empty()) {
    max_bytes = 0;
  }
  const auto seconds = options.unused_for.empty() ? std::optional<std::int64_t>(0) : parse_seconds(options.unused_for);
  if (!seconds)
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "unused-for", options.unused_for,
                         "must be a time such as 12h, 30d or 4w");
  runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  const runtime::PruneReport report = cache.prune(max_bytes, std::chrono::seconds(*seconds));
  if (options.json) {
    print_json({{"directory", cache.directory()},
                {"removed", report.removed},
                {"removed_bytes", report.removed_bytes},
                {"kept", report.kept},
                {"kept_bytes", report.kept_bytes}});
  } else {
    std::printf("removed %s (%s) from %s; %s (%s) stay\n", counted(report.removed, "entry", "entries").c_str(),
                human_bytes(report.removed_bytes).c_str(), cache.directory().c_str(),
                counted(report.kept, "entry", "entries").c_str(), human_bytes(report.kept_bytes).c_str());
  }
  return 0;
}

int clear(bool json) {
  runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  const std::uint64_t before = cache.stats().bytes;
  const std::uint64_t removed = cache.clear();
  const std::uint64_t after = cache.stats().bytes;  // another process may be adding to it
  const std::uint64_t freed = before > after ? before - after : 0;
  if (json) {
    print_json({{"directory", cache.directory()}, {"removed", removed}, {"bytes", freed}});
  } else {
    std::printf("removed %s (%s) from %s\n", counted(removed, "entry", "entries").c_str(),
                human_bytes(freed).c_str(), cache.directory().c_str());
  }
  return 0;
}

}  // namespace

void EntryFilter::add_options(CLI::App& command) {
  command.add_option("--spec", spec, "only entries whose Spec has these: key=value ...");
  command.add_option("--target", target, "only entries of this target: sm_90a, x86-64-v3, x86-64:znver3");
  command.add_option("--unit", unit, "only this unit: encode, select, attend, decode");
}

bool EntryFilter::fits(const runtime::CacheListing& entry) const {
  if (!unit.empty() && entry.unit != unit) return false;
  if (!target.empty() && entry.target != target && short_target(entry.target) != target) return false;
  std::istringstream words(spec);
  for (std::string word; words >> word;) {
    if ((" " + entry.spec + " ").find(" " + word + " ") == std::string::npos) return false;
  }
  return true;
}

void check_folder(const runtime::Cache& cache) {
  if (!cache.directory().empty()) return;
  const std::string wanted = runtime::Cache::default_directory();
  throw codegen::Error(
      ADAMAS_IO_ERROR, "cache folder", wanted,
      wanted.empty() ? "has no place: neither ADAMAS_CACHE_DIR nor HOME is set" : "cannot be used",
      "set ADAMAS_CACHE_DIR to a folder that only you can write");
}

std::string when(std::int64_t microseconds) {
  if (microseconds == 0) return "—";
  const auto seconds = static_cast<std::time_t>(microseconds / 1'000'000);
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(seconds));
}

std::string counted(std::uint64_t count, const std::string& one, const std::string& many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::optional<std::int64_t> parse_seconds(const std::string& text) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  constexpr std::int64_t kMost = std::int64_t{1} << 32;
  if (error != std::errc() || value < 0 || value > kMost || end - rest > 1) return std::nullopt;
  switch (rest == end ? 's' : *rest) {
    case 's':
      return value;
    case 'm':
      return value * 60;
    case 'h':
      return value * 3600;
    case 'd':
      return value * 86'400;
    case 'w':
      return value * 604'800;
  }
  return std::nullopt;
}

void add_cache(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand("cache", "Look into the kernel cache, tidy it, or pack it");
  command->require_subcommand(1);
  command->footer(
      "The folder is $ADAMAS_CACHE_DIR, else $XDG_CACHE_HOME/adamas, else ~/.cache/adamas. Packs in $ADAMAS_PACKS\n"
      "are searched before it.\n\n"
      "Example:\n  adamas cache stats --json");

  const auto json = std::make_shared<bool>(false);
  const auto add = [&](const std::string& name, const std::string& description, int (*action)(bool)) {
    CLI::App* inner = command->add_subcommand(name, description);
    inner->add_flag("--json", *json, "for machines");
    inner->footer("Example:\n  adamas cache " + name + " --json");
    inner->callback([json, action, &chosen] { chosen = [json, action] { return action(*json); }; });
  };
  add("stats", "Folder, entries, size, packs, and what all processes counted", stats);
  add_cache_ls(*command, chosen);
  add_cache_verify(*command, chosen);

  const auto options = std::make_shared<PruneOptions>();
  CLI::App* pruning = command->add_subcommand("prune", "Remove least recently used entries now");
  pruning->add_option("--size", options->size, "what may stay: 512M, 2GiB (default: the cap, $ADAMAS_CACHE_SIZE)");
  pruning->add_option("--unused-for", options->unused_for, "remove what was not used for so long: 12h, 30d, 4w");
  pruning->add_flag("--json", options->json, "for machines");
  pruning->footer("Example:\n  adamas cache prune --unused-for 30d");
  pruning->callback([options, &chosen] { chosen = [options] { return prune(*options); }; });

  add("clear", "Remove all entries; nothing else in the folder", clear);
  add_cache_pack(*command, chosen);
}

}  // namespace adamas::tools
