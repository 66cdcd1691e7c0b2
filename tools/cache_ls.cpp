// `adamas cache ls`: what each entry of the folder, or of a pack, is.
#include <algorithm>
#include <map>
#include <memory>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/pack.hpp"
#include "tools/cache.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using runtime::CacheListing;

constexpr std::size_t kDigestDigits = 12;  // enough to tell entries apart; --json has all of them

struct ListOptions {
  EntryFilter filter;
  std::string pack, sort = "made";
  bool reverse = false, json = false;
};

const std::vector<std::string> kSortKeys{"made", "used", "size", "compile", "spec", "target", "unit"};

std::vector<CacheListing> entries_of_pack(const std::string& path) {
  std::string problem;
  const auto pack = runtime::Pack::open(path, problem);
  if (!pack) throw codegen::Error(ADAMAS_IO_ERROR, "pack", path, problem);
  std::vector<CacheListing> entries;
  for (std::size_t i = 0; i < pack->entries(); ++i) {
    const auto entry = pack->read(i);
    if (!entry)
      throw codegen::Error(ADAMAS_IO_ERROR, "pack", path, "has a damaged entry: " + pack->digest(i),
                           "adamas cache verify lists all of them");
    entries.push_back({.digest = pack->digest(i),
                       .unit = entry->info.unit,
                       .spec = entry->info.spec,
                       .tuning = entry->info.tuning,
                       .target = entry->info.target,
                       .compiler = entry->info.compiler,
                       .bytes = pack->stored_bytes(i),
                       .path = pack->path()});
  }
  return entries;
}

void sort(std::vector<CacheListing>& entries, const std::string& key) {
  const auto by = [&](auto field) { std::ranges::stable_sort(entries, {}, field); };
  if (key == "used") by(&CacheListing::used_us);
  if (key == "size") by(&CacheListing::bytes);
  if (key == "compile") by(&CacheListing::compile_ms);
  if (key == "spec") by(&CacheListing::spec);
  if (key == "target") by(&CacheListing::target);
  if (key == "unit") by(&CacheListing::unit);
}

void print_line(const CacheListing& entry) {
  print_json({{"digest", entry.digest},
              {"unit", entry.unit},
              {"target", entry.target},
              {"spec", entry.spec},
              {"tuning", entry.tuning},
              {"bytes", entry.bytes},
              {"compile_ms", entry.compile_ms},
              {"created_us", entry.created_us},
              {"used_us", entry.used_us},
              {"compiler", entry.compiler},
              {"path", entry.path}});
}

int list(const ListOptions& options) {
  std::string where = options.pack;
  std::vector<CacheListing> entries;
  if (options.pack.empty()) {
    const runtime::Cache cache(std::nullopt, warnings_to_stderr());
    check_folder(cache);
    where = cache.directory();
    entries = cache.list();  // oldest first
  } else {
    entries = entries_of_pack(options.pack);
  }
  std::erase_if(entries, [&](const CacheListing& entry) { return !options.filter.fits(entry); });
  sort(entries, options.sort);
  if (options.reverse) std::ranges::reverse(entries);
  if (options.json) {
    for (const CacheListing& entry : entries)
      print_line(entry);
    return 0;
  }
  if (entries.empty()) {
    std::printf("%s has no such entry\n", where.c_str());
    return 0;
  }
  std::map<std::string, std::string> short_specs;  // worked out once each: it takes a parse of every key
  Table table({"key", "made", "last used", "target", "unit", "size", "compile", "compiler", "spec"});
  for (const CacheListing& entry : entries) {
    auto [spec, fresh] = short_specs.try_emplace(entry.spec);
    if (fresh) spec->second = short_spec(entry.spec);
    table.add({entry.digest.substr(0, kDigestDigits), when(entry.created_us), when(entry.used_us),
               short_target(entry.target), entry.unit, human_bytes(entry.bytes),
               entry.compile_ms > 0 ? human_milliseconds(entry.compile_ms) : "—",
               entry.compiler.substr(0, entry.compiler.find(" build")), spec->second});
  }
  table.print();
  return 0;
}

}  // namespace

void add_cache_ls(CLI::App& command, Action& chosen) {
  const auto options = std::make_shared<ListOptions>();
  CLI::App* inner = command.add_subcommand("ls", "Every entry: Spec, target, compiler, size, last use");
  options->filter.add_options(*inner);
  inner->add_option("--pack", options->pack, "of this pack, not of the folder");
  inner->add_option("--sort", options->sort, "made, used, size, compile, spec, target or unit (default: made)")
      ->check(CLI::IsMember(kSortKeys));
  inner->add_flag("--reverse", options->reverse, "largest or latest first");
  inner->add_flag("--json", options->json, "one JSON object an entry");
  inner->footer("Example:\n  adamas cache ls --target sm_90a --sort size --reverse");
  inner->callback([options, &chosen] { chosen = [options] { return list(*options); }; });
}

}  // namespace adamas::tools
