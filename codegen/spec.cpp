// Spec: the one list of keys, the defaults that depend on other keys, and the rules.
#include "codegen/spec.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/facts.hpp"
#include "codegen/format.hpp"
#include "codegen/key_values.hpp"

namespace adamas::codegen {
namespace {

using Names = std::span<const std::string_view>;

// In the order of the enumerators.
constexpr std::array<std::string_view, 2> kEstimators{"dot", "manhattan"};
constexpr std::array<std::string_view, 2> kScopes{"query_head", "kv_head"};
constexpr std::array<std::string_view, 5> kElementTypes{"f16", "bf16", "f32", "f8e4m3fn", "q8_0"};
constexpr std::array<std::string_view, 5> kCacheForms{"contiguous", "block_table", "csr", "slots",
                                                      "pointers"};
constexpr std::array<std::string_view, 2> kTables{"shared", "split"};

/// Types of queries and outputs: the first three element types.
constexpr Names kActivationTypes = Names(kElementTypes).first(3);

constexpr IntegerRange kHeadDims{16, 512, 16};
constexpr IntegerRange kHadamardSizes{1, 512};
constexpr std::array kBuckets{2, 4, 8, 16};
constexpr IntegerRange kQueryBits{3, 8};
constexpr IntegerRange kBudgets{1, 4096};
constexpr IntegerRange kSinks{0, kBudgets.max - 1};
constexpr IntegerRange kRecents{1, kBudgets.max};
constexpr IntegerRange kGroups{1, 32};
constexpr IntegerRange kQueryRows{1, 8};
constexpr IntegerRange kPageSizes{1, 1024};

/// Calls visit(key, value) for every key, in the canonical order.
template <class Visit>
void each_key(const Spec& spec, Visit visit) {
  visit("head_dim", spec.head_dim);
  visit("value_dim", spec.value_dim);
  visit("hadamard", spec.hadamard);
  visit("buckets", spec.buckets);
  visit("estimator", spec.estimator);
  visit("query_bits", spec.query_bits);
  visit("budget", spec.budget);
  visit("sink", spec.sink);
  visit("recent", spec.recent);
  visit("group", spec.group);
  visit("scope", spec.scope);
  visit("query_rows", spec.query_rows);
  visit("kv_type", spec.kv_type);
  visit("q_type", spec.q_type);
  visit("out_type", spec.out_type);
  visit("cache_form", spec.cache_form);
  visit("page_size", spec.page_size);
  visit("tables", spec.tables);
  visit("lse", spec.lse);
  visit("soft_cap", spec.soft_cap);
  visit("window", spec.window);
  visit("sink_logits", spec.sink_logits);
}

const std::vector<std::string_view>& all_keys() {
  static const std::vector<std::string_view> keys = [] {
    std::vector<std::string_view> list;
    each_key(Spec{}, [&](std::string_view key, auto) { list.push_back(key); });
    return list;
  }();
  return keys;
}

std::string written(int value) { return std::to_string(value); }
std::string written(bool value) { return value ? "on" : "off"; }
template <class Enum>
std::string written(Enum value) {
  return std::string(name(value));
}

// Each overwrites `value` if the key is given, and leaves the default otherwise.
void read(const KeyValues& given, std::string_view key, int& value, IntegerRange range) {
  if (const std::string* text = given.find(key)) value = parse_integer(key, *text, range);
}
void read(const KeyValues& given, std::string_view key, bool& value) {
  if (const std::string* text = given.find(key)) value = parse_switch(key, *text);
}
template <class Enum>
void read(const KeyValues& given, std::string_view key, Enum& value, Names names) {
  if (const std::string* text = given.find(key)) value = static_cast<Enum>(parse_name(key, *text, names));
}

/// Sizes of the transform for a head, ascending. Never empty: 1 divides everything.
std::vector<int> hadamard_sizes(int head_dim) {
  std::vector<int> sizes;
  for (int m = 1; m <= head_dim; ++m) {
    if (head_dim % m == 0 && is_hadamard_size(m)) sizes.push_back(m);
  }
  return sizes;
}

void check_hadamard(const Spec& spec) {
  const std::vector<int> sizes = hadamard_sizes(spec.head_dim);
  const int nearest = nearest_choice(spec.hadamard, sizes);
  if (nearest == spec.hadamard) return;
  const std::string rule = is_hadamard_size(spec.hadamard)
                               ? fmt::format("must divide head_dim {}", spec.head_dim)
                               : "must be 2^k * 1, 12, 20 or 28";
  refuse("hadamard", written(spec.hadamard), rule, written(nearest));
}

void check_budget(const Spec& spec) {
  const int forced = spec.sink + spec.recent;
  if (forced <= spec.budget) return;
  if (!kBudgets.contains(forced)) {
    refuse(
        "recent", written(spec.recent),
        fmt::format("sink + recent must fit the largest budget, {}, beside sink={}", kBudgets.max, spec.sink),
        written(static_cast<int>(kBudgets.max) - spec.sink));
  }
  refuse("budget", written(spec.budget),
         fmt::format("must hold the forced tokens, sink + recent = {} + {}", spec.sink, spec.recent),
         written(forced));
}

/// Rows of a block format are whole blocks.
void check_blocks(const Spec& spec) {
  const int block = storage_unit(spec.kv_type).elements;
  for (const auto& [key, dim] :
       {std::pair{"head_dim", spec.head_dim}, std::pair{"value_dim", spec.value_dim}}) {
    if (dim % block == 0) continue;
    refuse(key, written(dim),
           fmt::format("must be a multiple of {}: kv_type={} stores blocks", block, name(spec.kv_type)),
           written(std::max(dim / block * block, block)));
  }
}

/// A key that the rest of the Spec leaves without meaning must keep its default: it would be ignored
/// otherwise, and Specs that mean the same would differ.
void check_unused_keys(const Spec& spec) {
  const Spec defaults;
  if (spec.estimator == Estimator::manhattan && spec.query_bits != defaults.query_bits) {
    refuse("query_bits", written(spec.query_bits), "has no meaning with estimator=manhattan: leave it out",
           written(defaults.query_bits));
  }
  const bool paged = spec.cache_form != CacheForm::contiguous && spec.cache_form != CacheForm::slots;
  if (!paged && spec.page_size != defaults.page_size) {
    refuse("page_size", written(spec.page_size),
           fmt::format("has no meaning with cache_form={}: leave it out", name(spec.cache_form)),
           written(defaults.page_size));
  }
  if (spec.cache_form == CacheForm::contiguous && spec.tables != defaults.tables) {
    refuse("tables", written(spec.tables), "has no meaning with cache_form=contiguous: leave it out",
           written(defaults.tables));
  }
}

}  // namespace

Spec Spec::parse(std::string_view text) {
  const KeyValues given("Spec", text, all_keys());
  Spec spec;
  read(given, "head_dim", spec.head_dim, kHeadDims);
  spec.value_dim = spec.head_dim;
  read(given, "value_dim", spec.value_dim, kHeadDims);
  spec.hadamard = default_hadamard(spec.head_dim);
  read(given, "hadamard", spec.hadamard, kHadamardSizes);
  if (const std::string* buckets = given.find("buckets")) {
    spec.buckets = parse_choice("buckets", *buckets, kBuckets);
  }
  read(given, "estimator", spec.estimator, kEstimators);
  read(given, "query_bits", spec.query_bits, kQueryBits);
  read(given, "budget", spec.budget, kBudgets);
  read(given, "sink", spec.sink, kSinks);
  read(given, "recent", spec.recent, kRecents);
  read(given, "group", spec.group, kGroups);
  read(given, "scope", spec.scope, kScopes);
  read(given, "query_rows", spec.query_rows, kQueryRows);
  read(given, "kv_type", spec.kv_type, kElementTypes);
  const bool plain = static_cast<std::size_t>(spec.kv_type) < kActivationTypes.size();
  spec.q_type = plain ? spec.kv_type : ElementType::bf16;
  read(given, "q_type", spec.q_type, kActivationTypes);
  spec.out_type = spec.q_type;
  read(given, "out_type", spec.out_type, kActivationTypes);
  read(given, "cache_form", spec.cache_form, kCacheForms);
  read(given, "page_size", spec.page_size, kPageSizes);
  read(given, "tables", spec.tables, kTables);
  read(given, "lse", spec.lse);
  read(given, "soft_cap", spec.soft_cap);
  read(given, "window", spec.window);
  read(given, "sink_logits", spec.sink_logits);

  check_hadamard(spec);
  check_blocks(spec);
  check_budget(spec);
  check_unused_keys(spec);
  return spec;
}

std::string Spec::text() const {
  std::string text;
  each_key(*this, [&](std::string_view key, auto value) {
    if (!text.empty()) text += ' ';
    text += key;
    text += '=';
    text += written(value);
  });
  return text;
}

std::uint64_t Spec::hash() const {
  const std::string canonical = text();
  return XXH3_64bits(canonical.data(), canonical.size());
}

int default_hadamard(int head_dim) { return hadamard_sizes(head_dim).back(); }

std::string_view name(Estimator estimator) { return kEstimators[static_cast<std::size_t>(estimator)]; }
std::string_view name(Scope scope) { return kScopes[static_cast<std::size_t>(scope)]; }
std::string_view name(ElementType type) { return kElementTypes[static_cast<std::size_t>(type)]; }
std::string_view name(CacheForm form) { return kCacheForms[static_cast<std::size_t>(form)]; }
std::string_view name(Tables tables) { return kTables[static_cast<std::size_t>(tables)]; }

StorageUnit storage_unit(ElementType type) {
  if (type == ElementType::q8_0) return {32, 34};
  return {1, element_bytes(type)};
}

int element_bytes(ElementType type) {
  switch (type) {
    case ElementType::f16:
    case ElementType::bf16:
      return 2;
    case ElementType::f32:
      return 4;
    case ElementType::f8e4m3fn:
      return 1;
    case ElementType::q8_0:
      break;
  }
  throw Error(ADAMAS_UNSUPPORTED, "kv_type", std::string(name(ElementType::q8_0)),
              "stores blocks: one element has no size", "use f16, bf16, f32 or f8e4m3fn");
}

}  // namespace adamas::codegen
