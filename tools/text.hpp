// What people read: sizes, times, short forms of long names; and the cache's warnings.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/cache/cache.hpp"

namespace adamas::tools {

/// "312 B", "41.5 KiB", "1.2 GiB"
std::string human_bytes(std::uint64_t bytes);

/// "0.25 ms", "41.3 ms", "312 ms", "2.10 s"
std::string human_milliseconds(double milliseconds);

/// The keys of a canonical Spec without which it would mean something else: what a person would have typed.
/// A text that is no Spec (an entry of another version) comes back whole.
std::string short_spec(const std::string& canonical);

/// "x86-64:znver3:+sse3,...,+avx2" is shortened to "x86-64:znver3"; other targets stay.
std::string short_target(const std::string& target);

/// "12 compiled; found 40 in memory, 3 in packs, 7 in the folder; 2 waits, ...": what is zero and needs no word is
/// left out.
std::string totals_text(const runtime::CacheCounters& counters);

/// For caches: warnings go to stderr, the rest nowhere.
runtime::LogFn warnings_to_stderr();

}  // namespace adamas::tools
