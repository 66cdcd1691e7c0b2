// Spec: defaults, canonical text, every rule and its message, and the properties of the text form.
#include "codegen/spec.hpp"

#include <doctest/doctest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "tests/codegen/spec_gen.hpp"

using namespace adamas::codegen;

namespace {

constexpr const char* kDefaultText =
    "head_dim=128 value_dim=128 hadamard=128 buckets=4 estimator=dot query_bits=4 budget=128 sink=0 recent=1 "
    "group=1 "
    "scope=query_head query_rows=1 kv_type=f16 q_type=f16 out_type=f16 cache_form=block_table page_size=16 "
    "tables=shared lse=on soft_cap=off window=off sink_logits=off";

/// The error that parsing `text` must raise.
Error error_of(const std::string& text) {
  try {
    Spec::parse(text);
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_INVALID_SPEC);
    return error;
  }
  FAIL("was accepted: " << text);
  throw;
}

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;)
    words.push_back(word);
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words)
    text += word + ' ';
  return text;
}

/// `text` with `key` set to `value`, whether it was there or not.
std::string with(const std::string& text, const std::string& key, const std::string& value) {
  std::vector<std::string> words = words_of(text);
  std::erase_if(words, [&](const std::string& word) { return word.starts_with(key + "="); });
  words.push_back(key + "=" + value);
  return joined(words);
}

}  // namespace

TEST_CASE("an empty text is the contract's defaults") {
  CHECK(Spec::parse("").text() == kDefaultText);
  CHECK(Spec::parse(" \t\n ") == Spec{});
  CHECK(Spec::parse(kDefaultText) == Spec{});
}

TEST_CASE("every key is read") {
  const Spec spec = Spec::parse(
      "head_dim=96\tvalue_dim=64\nhadamard=48 buckets=8 estimator=dot query_bits=6 budget=300 sink=4 "
      "recent=16 "
      "group=5 scope=kv_head query_rows=3 kv_type=bf16 q_type=f32 out_type=f16 cache_form=pointers "
      "page_size=48 "
      "tables=split lse=off soft_cap=on window=on sink_logits=on");
  CHECK(spec.head_dim == 96);
  CHECK(spec.value_dim == 64);
  CHECK(spec.hadamard == 48);
  CHECK(spec.buckets == 8);
  CHECK(spec.query_bits == 6);
  CHECK(spec.budget == 300);
  CHECK(spec.sink == 4);
  CHECK(spec.recent == 16);
  CHECK(spec.group == 5);
  CHECK(spec.scope == Scope::kv_head);
  CHECK(spec.query_rows == 3);
  CHECK(spec.kv_type == ElementType::bf16);
  CHECK(spec.q_type == ElementType::f32);
  CHECK(spec.out_type == ElementType::f16);
  CHECK(spec.cache_form == CacheForm::pointers);
  CHECK(spec.page_size == 48);
  CHECK(spec.tables == Tables::split);
  CHECK_FALSE(spec.lse);
  CHECK(spec.soft_cap);
  CHECK(spec.window);
  CHECK(spec.sink_logits);
  CHECK(Spec::parse("estimator=manhattan").estimator == Estimator::manhattan);
}

TEST_CASE("defaults follow the keys they depend on") {
  CHECK(Spec::parse("head_dim=80").value_dim == 80);
  CHECK(Spec::parse("value_dim=64").head_dim == 128);
  CHECK(Spec::parse("kv_type=bf16").q_type == ElementType::bf16);
  CHECK(Spec::parse("kv_type=bf16").out_type == ElementType::bf16);
  CHECK(Spec::parse("kv_type=f32").q_type == ElementType::f32);
  CHECK(Spec::parse("kv_type=f8e4m3fn").q_type == ElementType::bf16);
  CHECK(Spec::parse("kv_type=q8_0").q_type == ElementType::bf16);
  CHECK(Spec::parse("kv_type=bf16 q_type=f32").out_type == ElementType::f32);
  CHECK(Spec::parse("q_type=f32 out_type=f16").out_type == ElementType::f16);
}

TEST_CASE("the default Hadamard size is the largest that divides head_dim") {
  constexpr std::array<std::array<int, 2>, 14> kExpected{{{16, 16},
                                                          {48, 48},
                                                          {64, 64},
                                                          {80, 80},
                                                          {96, 96},
                                                          {112, 112},
                                                          {128, 128},
                                                          {144, 48},
                                                          {176, 16},
                                                          {192, 192},
                                                          {240, 80},
                                                          {256, 256},
                                                          {336, 112},
                                                          {512, 512}}};
  for (const auto& [head_dim, size] : kExpected) {
    CAPTURE(head_dim);
    CHECK(default_hadamard(head_dim) == size);
    CHECK(Spec::parse("head_dim=" + std::to_string(head_dim)).hadamard == size);
  }
}

TEST_CASE("the hash is a fixed function of the text") {
  // XXH3 of kDefaultText by another implementation of it: caches on disk depend on it.
  CHECK(Spec{}.hash() == 0xdaa098c0b1f50e3e);
}

TEST_CASE("a bad value is refused with its rule and the nearest valid value") {
  struct Row {
    std::string text, field, value, rule, nearest;
  };
  const std::vector<Row> rows{
      {"buckets=3", "buckets", "3", "must be 2, 4, 8 or 16", "4"},
      {"buckets=5", "buckets", "5", "must be 2, 4, 8 or 16", "4"},
      {"buckets=0", "buckets", "0", "must be 2, 4, 8 or 16", "2"},
      {"buckets=1000", "buckets", "1000", "must be 2, 4, 8 or 16", "16"},
      {"head_dim=100", "head_dim", "100", "must be 16..512, a multiple of 16", "96"},
      {"head_dim=104", "head_dim", "104", "must be 16..512, a multiple of 16", "112"},
      {"head_dim=0", "head_dim", "0", "must be 16..512, a multiple of 16", "16"},
      {"head_dim=-128", "head_dim", "-128", "must be 16..512, a multiple of 16", "16"},
      {"head_dim=528", "head_dim", "528", "must be 16..512, a multiple of 16", "512"},
      {"value_dim=8", "value_dim", "8", "must be 16..512, a multiple of 16", "16"},
      {"head_dim=80 hadamard=64", "hadamard", "64", "must divide head_dim 80", "80"},
      {"head_dim=96 hadamard=64", "hadamard", "64", "must divide head_dim 96", "48"},
      {"hadamard=100", "hadamard", "100", "must be 2^k * 1, 12, 20 or 28", "128"},
      {"hadamard=36", "hadamard", "36", "must be 2^k * 1, 12, 20 or 28", "32"},
      {"hadamard=0", "hadamard", "0", "must be 1..512", "1"},
      {"hadamard=1024", "hadamard", "1024", "must be 1..512", "512"},
      {"budget=0", "budget", "0", "must be 1..4096", "1"},
      {"budget=5000", "budget", "5000", "must be 1..4096", "4096"},
      {"budget=2147483648", "budget", "2147483648", "must be 1..4096", "4096"},
      {"budget=99999999999999999999999999", "budget", "99999999999999999999999999", "must be 1..4096",
       "4096"},
      {"budget=-99999999999999999999999999", "budget", "-99999999999999999999999999", "must be 1..4096", "1"},
      {"budget=16 sink=4 recent=16", "budget", "16", "must hold the forced tokens, sink + recent = 4 + 16",
       "20"},
      {"sink=200", "budget", "128", "must hold the forced tokens, sink + recent = 200 + 1", "201"},
      {"budget=4096 sink=4000 recent=97", "recent", "97",
       "sink + recent must fit the largest budget, 4096, beside sink=4000", "96"},
      {"sink=-1", "sink", "-1", "must be 0..4095", "0"},
      {"recent=0", "recent", "0", "must be 1..4096", "1"},
      {"group=0", "group", "0", "must be 1..32", "1"},
      {"group=33", "group", "33", "must be 1..32", "32"},
      {"query_rows=9", "query_rows", "9", "must be 1..8", "8"},
      {"query_bits=2", "query_bits", "2", "must be 3..8", "3"},
      {"page_size=0", "page_size", "0", "must be 1..1024", "1"},
      {"page_size=1025", "page_size", "1025", "must be 1..1024", "1024"},
      {"estimator=manhatan", "estimator", "manhatan", "must be dot or manhattan", "manhattan"},
      {"scope=head", "scope", "head", "must be query_head or kv_head", "kv_head"},
      {"kv_type=fp16", "kv_type", "fp16", "must be f16, bf16, f32, f8e4m3fn or q8_0", "f16"},
      {"q_type=q8_0", "q_type", "q8_0", "must be f16, bf16 or f32", "f16"},
      {"out_type=float32", "out_type", "float32", "must be f16, bf16 or f32", "f32"},
      {"cache_form=blocktable", "cache_form", "blocktable",
       "must be contiguous, block_table, csr, slots or pointers", "block_table"},
      {"tables=splitted", "tables", "splitted", "must be shared or split", "split"},
      {"lse=true", "lse", "true", "must be on or off", "on"},
      {"window=", "window", "", "must be on or off", "on"},
      {"lse=ON", "lse", "ON", "must be on or off", "on"},
      {"lse=OFF", "lse", "OFF", "must be on or off", "off"},
      {"lse=0", "lse", "0", "must be on or off", "off"},
      {"lse=no", "lse", "no", "must be on or off", "off"},
      // A key with no meaning beside the others is refused, not ignored.
      {"estimator=manhattan query_bits=5", "query_bits", "5",
       "has no meaning with estimator=manhattan: leave it out", "4"},
      {"cache_form=contiguous page_size=64", "page_size", "64",
       "has no meaning with cache_form=contiguous: leave it out", "16"},
      {"cache_form=slots page_size=1", "page_size", "1", "has no meaning with cache_form=slots: leave it out",
       "16"},
      {"cache_form=contiguous tables=split", "tables", "split",
       "has no meaning with cache_form=contiguous: leave it out", "shared"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.text);
    const Error error = error_of(row.text);
    CHECK(error.field() == row.field);
    CHECK(error.value() == row.value);
    CHECK(error.rule() == row.rule);
    CHECK(error.hint() == "nearest valid value: " + row.nearest);
  }
}

TEST_CASE("what is not an integer is called so") {
  for (const std::string value : {"", "abc", "12x", "1.5", "0x10", "+4", "--4", "1e2", "4,"}) {
    CAPTURE(value);
    const Error error = error_of("group=" + value);
    CHECK(error.field() == "group");
    CHECK(error.value() == value);
    CHECK(error.rule() == "is not an integer: must be 1..32");
    CHECK(error_of("buckets=" + value).rule() == "is not an integer: must be 2, 4, 8 or 16");
  }
}

TEST_CASE("a bad text is refused by its word") {
  CHECK(error_of("bugdet=64").field() == "bugdet");
  CHECK(error_of("bugdet=64").value() == "64");
  CHECK(error_of("bugdet=64").rule() == "is not a key of a Spec");
  CHECK(error_of("bugdet=64").hint() == "nearest key: budget");
  CHECK(error_of("headdim=64").hint() == "nearest key: head_dim");
  CHECK(error_of("batch=64").field() == "batch");
  CHECK(error_of("HEAD_DIM=64").field() == "HEAD_DIM");
  CHECK(error_of("=64").field() == "");

  CHECK(error_of("budget").field() == "budget");
  CHECK(error_of("budget").rule() == "a Spec is written key=value");
  CHECK(error_of("budget").hint() == "nearest key: budget=");
  CHECK(error_of("budget 64").field() == "budget");
  CHECK(error_of("budget= 64").field() == "64");

  const Error twice = error_of("budget=64 group=4 budget=32");
  CHECK(twice.field() == "budget");
  CHECK(twice.value() == "32");
  CHECK(twice.rule() == "is given twice");
  CHECK(twice.hint() == "keep one; the first was budget=64");
  CHECK(error_of("budget=64 budget=64").rule() == "is given twice");
  CHECK(error_of("group=4=4").value() == "4=4");
}

TEST_CASE("names and sizes of element types") {
  CHECK(name(ElementType::f8e4m3fn) == "f8e4m3fn");
  CHECK(element_bytes(ElementType::f16) == 2);
  CHECK(element_bytes(ElementType::bf16) == 2);
  CHECK(element_bytes(ElementType::f32) == 4);
  CHECK(element_bytes(ElementType::f8e4m3fn) == 1);
  CHECK_THROWS_AS(element_bytes(ElementType::q8_0), Error);
}

TEST_CASE("property: canonical text parses back to an equal Spec with an equal hash") {
  CHECK(rc::check([] {
    const Spec spec = *any_spec();
    const Spec again = Spec::parse(spec.text());
    RC_ASSERT(again == spec);
    RC_ASSERT(again.text() == spec.text());
    RC_ASSERT(again.hash() == spec.hash());
  }));
}

TEST_CASE("property: Specs are equal exactly when their texts and hashes are") {
  CHECK(rc::check([] {
    const Spec a = *any_spec();
    Spec b = a;
    b.group = *rc::gen::inRange(1, 33);
    b.window = *rc::gen::arbitrary<bool>();
    RC_ASSERT((a == b) == (a.text() == b.text()));
    RC_ASSERT((a == b) == (a.hash() == b.hash()));
  }));
}

TEST_CASE("property: the order of the words does not matter") {
  CHECK(rc::check([] {
    const Spec spec = *any_spec();
    std::vector<std::string> words = words_of(spec.text());
    // A permutation of the words: sort them by random numbers.
    const auto order = *rc::gen::container<std::vector<int>>(words.size(), rc::gen::arbitrary<int>());
    std::vector<std::size_t> places(words.size());
    for (std::size_t i = 0; i < places.size(); ++i)
      places[i] = i;
    std::ranges::sort(places, {}, [&](std::size_t i) { return order[i]; });
    std::vector<std::string> shuffled;
    for (const std::size_t i : places)
      shuffled.push_back(words[i]);
    RC_ASSERT(Spec::parse(joined(shuffled)) == spec);
  }));
}

TEST_CASE("property: following the hints ends in a valid Spec") {
  CHECK(rc::check([] {
    const std::vector<std::string> integer_keys{"head_dim",   "value_dim",  "hadamard", "buckets",
                                                "query_bits", "budget",     "sink",     "recent",
                                                "group",      "query_rows", "page_size"};
    std::string text =
        *rc::gen::element<std::string>("", "estimator=manhattan", "cache_form=contiguous tables=split");
    for (const std::string& key : integer_keys) {
      if (*rc::gen::arbitrary<bool>()) text = with(text, key, std::to_string(*rc::gen::inRange(-100, 6000)));
    }
    const std::string prefix = "nearest valid value: ";
    for (int tries = 0;; ++tries) {
      RC_ASSERT(tries <= 22);
      try {
        Spec::parse(text);
        break;
      } catch (const Error& error) {
        RC_ASSERT(error.hint().starts_with(prefix));
        text = with(text, error.field(), error.hint().substr(prefix.size()));
      }
    }
  }));
}

TEST_CASE("property: any bytes give a Spec or an INVALID_SPEC error") {
  CHECK(rc::check([](const std::string& bytes) {
    const std::string text = *rc::gen::element<std::string>("", "head_dim=", "budget=12", "lse=on ") + bytes;
    try {
      const Spec spec = Spec::parse(text);
      RC_ASSERT(Spec::parse(spec.text()) == spec);
    } catch (const Error& error) {
      RC_ASSERT(error.code() == ADAMAS_INVALID_SPEC);
      RC_ASSERT(!error.rule().empty());
    }
  }));
}
