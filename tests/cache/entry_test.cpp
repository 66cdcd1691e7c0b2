// The entry format: what is written is read back, and nothing that was changed passes for an entry.
#include "runtime/cache/entry.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/cache/support.hpp"

using namespace adamas::runtime;
using namespace adamas::tests;

namespace {

const std::string kKeyText = "6:select\n11:head_dim=64\n";

EntryInfo sample_info() {
  return {.digest = std::string(32, 'a'),
          .unit = "select",
          .spec = "head_dim=64",
          .tuning = "chunk=64",
          .target = "x86-64-v3",
          .options = {"-O2", "-ffp-contract=off"},
          .compiler = "adamas-cc 19.1.7 0123456789abcdef",
          .compile_ms = 151.25,
          .created_us = 1'700'000'000'123'456};
}

std::vector<std::byte> sample_file() {
  return encode_entry(sample_info(), kKeyText, bytes_of("machine code"));
}

}  // namespace

TEST_CASE("an entry comes back as it was written") {
  const std::vector<std::byte> file = sample_file();
  const DecodedEntry entry = decode_entry(file);
  REQUIRE(entry.state == EntryState::good);
  CHECK(entry.key_text == kKeyText);
  CHECK(std::vector(entry.binary.begin(), entry.binary.end()) == bytes_of("machine code"));
  const EntryInfo expected = sample_info();
  CHECK(entry.info.digest == expected.digest);
  CHECK(entry.info.unit == expected.unit);
  CHECK(entry.info.spec == expected.spec);
  CHECK(entry.info.tuning == expected.tuning);
  CHECK(entry.info.target == expected.target);
  CHECK(entry.info.options == expected.options);
  CHECK(entry.info.compiler == expected.compiler);
  CHECK(entry.info.compile_ms == expected.compile_ms);
  CHECK(entry.info.created_us == expected.created_us);
}

TEST_CASE("metadata with bytes that are not UTF-8 does not stop an entry") {
  EntryInfo info = sample_info();
  info.compiler = "cc \xff\xfe";
  const auto file = encode_entry(info, "key \xff", bytes_of("code"));
  const DecodedEntry entry = decode_entry(file);
  REQUIRE(entry.state == EntryState::good);
  CHECK(entry.key_text == "key \xff");
}

TEST_CASE("an entry without a binary or key is still whole") {
  const auto file = encode_entry(sample_info(), "", {});
  const DecodedEntry entry = decode_entry(file);
  CHECK(entry.state == EntryState::good);
  CHECK(entry.binary.empty());
}

TEST_CASE("every truncation is damage, and so is every extension") {
  const std::vector<std::byte> file = sample_file();
  for (std::size_t size = 0; size < file.size(); ++size) {
    // An allocation of exactly this size: a read beyond it is seen by the address sanitizer.
    const std::vector<std::byte> part(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    CHECK(decode_entry(part).state == EntryState::damaged);
  }
  std::vector<std::byte> longer = file;
  longer.push_back(std::byte{0});
  CHECK(decode_entry(longer).state == EntryState::damaged);
}

TEST_CASE("no flipped bit passes") {
  const std::vector<std::byte> file = sample_file();
  int foreign = 0;
  for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
    std::vector<std::byte> flipped = file;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    const EntryState state = decode_entry(flipped).state;
    CHECK(state != EntryState::good);
    foreign += state == EntryState::foreign;
  }
  CHECK(foreign == 32);  // the schema's bits, and no other
}

TEST_CASE("lengths that would wrap around are damage") {
  std::vector<std::byte> file = sample_file();
  const std::uint64_t huge = ~std::uint64_t{0} - 10;
  std::memcpy(file.data() + kEntryHeaderBytes - sizeof huge, &huge, sizeof huge);
  CHECK(decode_entry(file).state == EntryState::damaged);
  CHECK_FALSE(metadata_bytes(file, file.size()));
}

TEST_CASE("the metadata can be read without the rest") {
  const std::vector<std::byte> file = sample_file();
  const std::span header = std::span(file).first(kEntryHeaderBytes);
  const auto length = metadata_bytes(header, file.size());
  REQUIRE(length);
  CHECK_FALSE(metadata_bytes(header, file.size() - 1));
  const auto info =
      decode_metadata({reinterpret_cast<const char*>(file.data()) + kEntryHeaderBytes, *length});
  REQUIRE(info);
  CHECK(info->target == "x86-64-v3");
}

TEST_CASE("metadata of the wrong shape is refused") {
  CHECK_FALSE(decode_metadata(""));
  CHECK_FALSE(decode_metadata("[]"));
  CHECK_FALSE(decode_metadata("{}"));
  CHECK_FALSE(decode_metadata(R"({"digest":1,"unit":"","spec":"","tuning":"","target":"","options":[],)"
                              R"("compiler":"","compile_ms":0,"created_us":0})"));
  CHECK_FALSE(decode_metadata(std::string(100'000, '[')));
}

TEST_CASE("an entry beyond the size limit is refused where it is made") {
  const std::string key_text(kMaxEntryBytes, 'k');
  CHECK_THROWS_AS(encode_entry(sample_info(), key_text, {}), adamas::codegen::Error);
}
