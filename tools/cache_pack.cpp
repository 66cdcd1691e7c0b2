// `adamas cache pack` and `adamas cache verify`: every entry read and checked, and written into a pack or reported.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/device/cpu_count.hpp"
#include "tools/cache.hpp"
#include "tools/text.hpp"

namespace adamas::tools {
namespace {

using runtime::CheckedEntry;

struct PackOptions {
  EntryFilter filter;
  std::string out;
  bool json = false;
};

/// An entry that is kept until it is known whether a newer one of its key follows.
struct Kept {
  runtime::EntryInfo info;
  std::string key_text;
  std::vector<std::byte> binary;
};

Kept keep(const CheckedEntry& entry) {
  const runtime::CacheListing& listing = entry.listing;
  return {{.digest = listing.digest,
           .unit = listing.unit,
           .spec = listing.spec,
           .tuning = listing.tuning,
           .target = listing.target,
           .options = entry.options,
           .compiler = listing.compiler,
           .created_us = listing.created_us},
          std::string(entry.key_text),
          {entry.binary.begin(), entry.binary.end()}};
}

int pack(const PackOptions& options) {
  const runtime::Cache cache(std::nullopt, warnings_to_stderr());
  check_folder(cache);
  std::map<std::string, Kept> newest;  // by digest: what a look-up in the folder would find
  std::uint64_t damaged = 0;
  cache.visit([&](const CheckedEntry& entry) {
    damaged += entry.state == CheckedEntry::State::damaged;
    if (entry.state != CheckedEntry::State::good || !options.filter.fits(entry.listing)) return;
    const auto known = newest.find(entry.listing.digest);
    if (known == newest.end() || known->second.info.created_us < entry.listing.created_us)
      newest.insert_or_assign(entry.listing.digest, keep(entry));
  });
  if (newest.empty())
    throw codegen::Error(ADAMAS_INVALID_ARGUMENT, "cache folder", cache.directory(), "has no such entry to pack",
                         "adamas cache ls lists what it has; adamas precompile makes packs from lists of Specs");

  runtime::PackWriter writer;
  std::map<std::pair<std::string, std::string>, std::set<std::string>> tunings;
  for (const auto& [digest, entry] : newest) {
    writer.add(entry.info, entry.key_text, entry.binary);
    tunings[{entry.info.target, entry.info.spec}].insert(entry.info.tuning);
  }
  // Of several Tunings none is the one to take: who asks for none gets the default.
  for (const auto& [set, used] : tunings)
    if (used.size() == 1) writer.add_set({set.first, set.second, *used.begin()});
  const std::uint64_t bytes = writer.write(options.out, runtime::usable_cpus());
  if (options.json) {
    print_json({{"out", options.out}, {"bytes", bytes}, {"entries", writer.entries()}, {"damaged", damaged}});
  } else {
    std::printf("%s: %s in %s%s\n", options.out.c_str(), counted(writer.entries(), "entry", "entries").c_str(),
                human_bytes(bytes).c_str(),
                damaged == 0 ? ""
                             : fmt::format("; {} left out", counted(damaged, "damaged entry", "damaged entries")).c_str());
  }
  return 0;
}

// ---- verify

struct Finding {
  std::string path, problem;
};

struct Verdict {
  std::string where;
  std::uint64_t good = 0, foreign = 0, of_several_compilers = 0;
  std::vector<Finding> damaged;
};

Verdict verify_folder(const runtime::Cache& cache) {
  Verdict verdict;
  verdict.where = cache.directory();
  std::map<std::string, int> compilers;  // by digest
  cache.visit([&](const CheckedEntry& entry) {
    if (entry.state == CheckedEntry::State::damaged) verdict.damaged.push_back({entry.listing.path, "is damaged"});
    verdict.foreign += entry.state == CheckedEntry::State::foreign;
    if (entry.state != CheckedEntry::State::good) return;
    ++verdict.good;
    verdict.of_several_compilers += ++compilers[entry.listing.digest] == 2;
  });
  return verdict;
}

Verdict verify_pack(const std::string& path) {
  Verdict verdict;
  verdict.where = path;
  std::string problem;
  const auto opened = runtime::Pack::open(path, problem);
  if (!opened) {
    verdict.damaged.push_back({path, problem});
    return verdict;
  }
  for (std::size_t i = 0; i < opened->entries(); ++i) {
    if (opened->read(i))
      ++verdict.good;
    else
      verdict.damaged.push_back({path, "entry " + opened->digest(i) + " is damaged"});
  }
  return verdict;
}

struct VerifyOptions {
  std::vector<std::string> packs;
  bool json = false;
};

int verify(const VerifyOptions& options) {
  const runtime::Cache cache(std::nullopt, warnings_to_stderr());
  std::vector<Verdict> verdicts;
  if (options.packs.empty()) {
    check_folder(cache);
    verdicts.push_back(verify_folder(cache));
    for (const auto& used : cache.packs())
      verdicts.push_back(verify_pack(used->path()));
  }
  for (const std::string& path : options.packs)
    verdicts.push_back(verify_pack(path));

  Table table({"where", "good", "damaged", "other schema", "keys of several compilers"});
  bool all_good = true;
  for (const Verdict& verdict : verdicts) {
    all_good = all_good && verdict.damaged.empty();
    if (options.json) {
      nlohmann::ordered_json damaged = nlohmann::ordered_json::array();
      for (const Finding& finding : verdict.damaged)
        damaged.push_back({{"path", finding.path}, {"problem", finding.problem}});
      print_json({{"where", verdict.where},
                  {"good", verdict.good},
                  {"damaged", std::move(damaged)},
                  {"other_schema", verdict.foreign},
                  {"keys_of_several_compilers", verdict.of_several_compilers}});
    }
    table.add({verdict.where, fmt::to_string(verdict.good), fmt::to_string(verdict.damaged.size()),
               fmt::to_string(verdict.foreign), fmt::to_string(verdict.of_several_compilers)});
  }
  if (!options.json) {
    table.print();
    for (const Verdict& verdict : verdicts)
      for (const Finding& finding : verdict.damaged)
        std::printf("%s: %s\n", finding.path.c_str(), finding.problem.c_str());
  }
  return all_good ? 0 : 1;
}

}  // namespace

void add_cache_pack(CLI::App& command, Action& chosen) {
  const auto options = std::make_shared<PackOptions>();
  CLI::App* inner = command.add_subcommand("pack", "Write the folder's entries into one read-only pack");
  options->filter.add_options(*inner);
  inner->add_option("--out", options->out, "the pack to write")->required();
  inner->add_flag("--json", options->json, "for machines");
  inner->footer("Example:\n  adamas cache pack --target sm_90a --out adamas.pack");
  inner->callback([options, &chosen] { chosen = [options] { return pack(*options); }; });
}

void add_cache_verify(CLI::App& command, Action& chosen) {
  const auto options = std::make_shared<VerifyOptions>();
  CLI::App* inner = command.add_subcommand("verify", "Read and check every entry of the folder and of packs");
  inner->add_option("packs", options->packs, "packs to check (default: the folder, and the packs in use)");
  inner->add_flag("--json", options->json, "one JSON object a folder or pack");
  inner->footer("Exit code: 1 if anything is damaged.\n\nExample:\n  adamas cache verify adamas.pack");
  inner->callback([options, &chosen] { chosen = [options] { return verify(*options); }; });
}

}  // namespace adamas::tools
