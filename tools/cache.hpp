// What the files of `adamas cache` share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "runtime/cache/cache.hpp"
#include "tools/cli.hpp"

namespace adamas::tools {

void add_cache_ls(CLI::App& command, Action& chosen);
void add_cache_pack(CLI::App& command, Action& chosen);
void add_cache_verify(CLI::App& command, Action& chosen);

/// Which entries are meant; empty fields mean any.
struct EntryFilter {
  std::string spec;    ///< words, each a key=value of the entry's Spec
  std::string target;  ///< the whole name, or the part of a CPU's before its features
  std::string unit;

  void add_options(CLI::App& command);
  bool fits(const runtime::CacheListing& entry) const;
};

/// Fails if there is no folder: a cache in memory has nothing to tell about once this program ends.
void check_folder(const runtime::Cache& cache);

/// "2026-11-23 14:05"; "—" for no time at all, as in packs.
std::string when(std::int64_t microseconds);

/// "1 entry", "7 entries"
std::string counted(std::uint64_t count, const std::string& one, const std::string& many);

/// "90" or "90s", "15m", "12h", "30d", "4w". Nothing for other texts.
std::optional<std::int64_t> parse_seconds(const std::string& text);

}  // namespace adamas::tools
