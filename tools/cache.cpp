// `adamas cache`: what the kernel cache holds, and emptying it.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <memory>
#include <optional>

#include "codegen/error.hpp"
#include "runtime/cache/cache.hpp"
#include "tools/cli.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

constexpr std::size_t kDigestDigits = 12;  // enough to tell entries apart; --json has all of them

/// Fails if there is no folder: a cache in memory has nothing to tell about once this program ends.
void check_folder(const runtime::Cache& cache) {
  if (!cache.directory().empty()) return;
  const std::string wanted = runtime::Cache::default_directory();
  throw codegen::Error(
      ADAMAS_IO_ERROR, "cache folder", wanted,
      wanted.empty() ? "has no place: neither ADAMAS_CACHE_DIR nor HOME is set" : "cannot be used",
      "set ADAMAS_CACHE_DIR to a folder that only you can write");
}

std::string when(std::int64_t microseconds) {
  const auto seconds = static_cast<std::time_t>(microseconds / 1'000'000);
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(seconds));
}

int stats(bool json) {
  const runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  const runtime::CacheStats found = cache.stats();
  if (json) {
    print_json({{"directory", cache.directory()}, {"entries", found.entries}, {"bytes", found.bytes}});
    return 0;
  }
  Table table({"folder", "entries", "size"});
  table.add({cache.directory(), fmt::to_string(found.entries), human_bytes(found.bytes)});
  table.print();
  return 0;
}

int list(bool json) {
  const runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  const std::vector<runtime::CacheListing> entries = cache.list();
  if (json) {
    for (const runtime::CacheListing& entry : entries) {
      print_json({{"digest", entry.digest},
                  {"unit", entry.unit},
                  {"target", entry.target},
                  {"spec", entry.spec},
                  {"tuning", entry.tuning},
                  {"bytes", entry.bytes},
                  {"compile_ms", entry.compile_ms},
                  {"created_us", entry.created_us},
                  {"compiler", entry.compiler},
                  {"path", entry.path}});
    }
    return 0;
  }
  if (entries.empty()) {
    std::printf("%s is empty\n", cache.directory().c_str());
    return 0;
  }
  Table table({"key", "made", "target", "unit", "size", "compile", "spec"});
  for (const runtime::CacheListing& entry : entries) {
    table.add({entry.digest.substr(0, kDigestDigits), when(entry.created_us), short_target(entry.target),
               entry.unit, human_bytes(entry.bytes), human_milliseconds(entry.compile_ms),
               short_spec(entry.spec)});
  }
  table.print();
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
    std::printf("removed %s (%s) from %s\n",
                fmt::format("{} {}", removed, removed == 1 ? "entry" : "entries").c_str(),
                human_bytes(freed).c_str(), cache.directory().c_str());
  }
  return 0;
}

}  // namespace

void add_cache(CLI::App& app, Action& chosen) {
  CLI::App* command = app.add_subcommand("cache", "Look into the kernel cache, or empty it");
  command->require_subcommand(1);
  command->footer(
      "The folder is $ADAMAS_CACHE_DIR, else $XDG_CACHE_HOME/adamas, else ~/.cache/adamas.\n\n"
      "Example:\n  adamas cache stats --json");

  const auto json = std::make_shared<bool>(false);
  const auto add = [&](const std::string& name, const std::string& description, int (*action)(bool)) {
    CLI::App* inner = command->add_subcommand(name, description);
    inner->add_flag("--json", *json, "for machines");
    inner->footer("Example:\n  adamas cache " + name + " --json");
    inner->callback([json, action, &chosen] { chosen = [json, action] { return action(*json); }; });
  };
  add("stats", "Folder, number of entries, size", stats);
  add("ls", "Every entry, oldest first", list);
  add("clear", "Remove all entries; nothing else in the folder", clear);
}

}  // namespace adamas::tools
