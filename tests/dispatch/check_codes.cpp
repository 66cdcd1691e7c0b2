// check and rebuild: see check_codes.hpp.
#include "tests/dispatch/check_codes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

using TokenHeads = std::set<std::pair<std::int64_t, int>>;  // slot, K/V head

CheckArgs check_args(const SmallProblem& problem) {
  const EncodeArgs encode = problem.encode_args();
  return {.cache = encode.cache,
          .codes = encode.codes,
          .first_slot = encode.first_slot,
          .count = encode.count,
          .key_thresholds = encode.key_thresholds,
          .counters = encode.counters};
}

/// Turns the keys of some token-heads round, behind the codes' back.
void rewrite_keys(const SmallProblem& problem, const TokenHeads& which) {
  auto keys = problem.key.read<std::uint16_t>();
  const std::int64_t dim = problem.spec.head_dim;
  for (const auto& [slot, head] : which) {
    for (std::int64_t i = 0; i < dim; ++i)
      keys[static_cast<std::size_t>((slot * problem.shape.kv_heads + head) * dim + i)] ^= 0x8000;
  }
  problem.key.write(keys.data(), problem.key.size());
}

struct Found {
  Counters counters = {};
  TokenHeads stale = {};
  bool whole = true;  ///< every byte of the map was written, 0 or 1
};

/// @param slots  empty: all of the cache, as a range
Found run(const SmallProblem& problem, bool rebuild, const std::vector<std::int32_t>& slots = {}) {
  const int heads = problem.shape.kv_heads;
  const std::int64_t count = slots.empty() ? problem.slots : static_cast<std::int64_t>(slots.size());
  const DeviceMemory map(problem.context, static_cast<std::size_t>(count * heads), 0x77);
  const DeviceMemory listed = DeviceMemory::of(problem.context, slots);
  CheckArgs args = check_args(problem);
  args.count = count;
  args.slots = slots.empty() ? nullptr : listed.as<std::int32_t>();
  args.stale = map.as<std::uint8_t>();
  problem.context.clear(problem.counters.data());
  rebuild ? problem.kernel.rebuild(args) : problem.kernel.check(args);
  Found found{.counters = problem.context.read(problem.counters.data())};
  const auto bytes = map.read<std::uint8_t>();
  for (std::int64_t i = 0; i < count; ++i) {
    for (int head = 0; head < heads; ++head) {
      const std::uint8_t byte = bytes[static_cast<std::size_t>(i * heads + head)];
      found.whole = found.whole && byte <= 1;
      if (byte == 1) found.stale.insert({slots.empty() ? i : slots[static_cast<std::size_t>(i)], head});
    }
  }
  return found;
}

void check_one(const Context& context, const std::string& spec) {
  INFO(spec);
  const SmallProblem problem(context, {.spec = spec, .sequences = {{1, 50}, {2, 37}}, .kv_heads = 3});
  problem.encode();
  const auto all = static_cast<std::uint64_t>(problem.slots * 3);
  const auto fresh = problem.codes.read<std::uint8_t>();

  const Found clean = run(problem, false);
  CHECK(clean.counters.status == 0);
  CHECK(clean.counters.tokens_checked == all);
  CHECK(clean.counters.tokens_stale == 0);
  CHECK(clean.stale.empty());
  CHECK(clean.whole);

  TokenHeads changed{{problem.slot(0, 0), 0}, {problem.slot(0, 0), 2}, {problem.slot(1, 36), 1}};
  for (int p = 8; p < 24; ++p)
    changed.insert({problem.slot(0, p), p % 3});
  rewrite_keys(problem, changed);
  const Found found = run(problem, false);
  CHECK(found.stale == changed);
  CHECK(found.whole);
  CHECK(found.counters.tokens_checked == all);
  CHECK(found.counters.tokens_stale == changed.size());
  CHECK(problem.codes.read<std::uint8_t>() == fresh);  // a check writes nothing

  // Listed slots: what encode skips is skipped here, a slot beyond the cache is reported.
  const auto first = static_cast<std::int32_t>(problem.slot(0, 0));
  const auto quiet = static_cast<std::int32_t>(problem.slot(0, 1));
  const Found listed = run(problem, false, {-1, first, quiet, static_cast<std::int32_t>(problem.slots), -5});
  CHECK(listed.stale == TokenHeads{{first, 0}, {first, 2}});
  CHECK(listed.whole);
  CHECK(listed.counters.tokens_checked == 2 * 3);
  CHECK(listed.counters.tokens_stale == 2);
  CHECK(listed.counters.status == ADAMAS_STATUS_BAD_SLOT);

  // Some are mended, then the rest.
  const Found mended = run(problem, true, {first, quiet});
  CHECK(mended.stale == TokenHeads{{first, 0}, {first, 2}});
  changed.erase({first, 0});
  changed.erase({first, 2});
  CHECK(run(problem, false).stale == changed);
  const Found rest = run(problem, true);
  CHECK(rest.stale == changed);
  CHECK(rest.counters.tokens_stale == changed.size());
  CHECK(run(problem, false).stale.empty());
  const auto rebuilt = problem.codes.read<std::uint8_t>();
  problem.encode();
  CHECK(problem.codes.read<std::uint8_t>() == rebuilt);
}

}  // namespace

void check_stale_codes(const Context& context) {
  for (const char* spec :
       {"head_dim=64 group=2 budget=16", "head_dim=128 buckets=2 kv_type=bf16 cache_form=contiguous",
        "head_dim=80 buckets=16 page_size=5 budget=8",
        "head_dim=256 buckets=8 estimator=manhattan page_size=32", "head_dim=96 cache_form=slots",
        "head_dim=48 cache_form=pointers page_size=8"}) {
    check_one(context, spec);
  }
}

void check_bad_check_arguments(const Context& context) {
  const SmallProblem problem(context, {});
  problem.encode();
  problem.poison_outputs();
  const auto before = problem.codes.read<std::uint8_t>();
  const struct {
    std::string field;
    void (*change)(CheckArgs&);
  } cases[] = {{"cache.key", [](CheckArgs& args) { args.cache.key = nullptr; }},
               {"codes", [](CheckArgs& args) { args.codes = nullptr; }},
               {"key_thresholds", [](CheckArgs& args) { args.key_thresholds = nullptr; }},
               {"count", [](CheckArgs& args) { args.count = -1; }},
               {"count", [](CheckArgs& args) { ++args.count; }},
               {"first_slot", [](CheckArgs& args) { args.first_slot = -1; }},
               {"counters", [](CheckArgs& args) { args.counters = static_cast<char*>(args.counters) + 4; }}};
  for (const bool rebuild : {false, true}) {
    const auto refused = [&](const CheckArgs& args) {
      return refusal_of([&] { rebuild ? problem.kernel.rebuild(args) : problem.kernel.check(args); });
    };
    for (const auto& [field, change] : cases) {
      CheckArgs args = check_args(problem);
      change(args);
      const Refusal refusal = refused(args);
      INFO(refusal.message);
      CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
      CHECK(refusal.field == field);
    }
    CheckArgs silent = check_args(problem);
    silent.counters = nullptr;
    CHECK(refused(silent).field == (rebuild ? "" : "counters"));  // a rebuild need not report
    silent.count = 0;
    if (rebuild) CHECK(refused(silent).status == ADAMAS_OK);
  }
  context.synchronize();
  CHECK(problem.codes.read<std::uint8_t>() == before);
}

}  // namespace adamas::tests
