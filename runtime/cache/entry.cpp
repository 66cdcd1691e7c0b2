// The file format of a cached binary, written and read with every length checked.
#include "runtime/cache/entry.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "codegen/error.hpp"
#include "runtime/cache/digest.hpp"

namespace adamas::runtime {
namespace {

static_assert(std::endian::native == std::endian::little, "entries are little-endian and copied as they lie");

constexpr char kMagic[8] = {'A', 'D', 'A', 'M', 'A', 'S', 'K', '\n'};
constexpr std::uint32_t kSchema = 1;

constexpr std::size_t kSchemaAt = sizeof kMagic;
constexpr std::size_t kChecksumAt = kSchemaAt + sizeof kSchema;
constexpr std::size_t kCheckedFrom = kChecksumAt + sizeof(Digest);

struct Lengths {
  std::uint32_t metadata = 0;
  std::uint32_t key = 0;
  std::uint64_t binary = 0;
};
static_assert(sizeof(Lengths) == 16 && kCheckedFrom + sizeof(Lengths) == kEntryHeaderBytes);

std::string metadata_json(const EntryInfo& info) {
  const nlohmann::ordered_json json = {
      {"digest", info.digest},
      {"unit", info.unit},
      {"spec", info.spec},
      {"tuning", info.tuning},
      {"target", info.target},
      {"options", info.options},
      {"compiler", info.compiler},
      {"compile_ms", info.compile_ms},
      {"created_us", info.created_us},
  };
  // A compiler's version line or an option may hold any bytes; what is shown need not be exact, the key is.
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::optional<Lengths> lengths_of(std::span<const std::byte> header, std::uint64_t file_bytes) {
  if (header.size() < kEntryHeaderBytes || std::memcmp(header.data(), kMagic, sizeof kMagic) != 0)
    return std::nullopt;
  Lengths lengths;
  std::memcpy(&lengths, header.data() + kCheckedFrom, sizeof lengths);
  // Each part is bounded before they are added, so the sum cannot wrap.
  if (lengths.metadata > kMaxMetadataBytes || lengths.key > kMaxEntryBytes || lengths.binary > kMaxEntryBytes)
    return std::nullopt;
  if (kEntryHeaderBytes + std::uint64_t{lengths.metadata} + lengths.key + lengths.binary != file_bytes)
    return std::nullopt;
  return lengths;
}

bool has_other_schema(std::span<const std::byte> file) {
  if (file.size() < kCheckedFrom || std::memcmp(file.data(), kMagic, sizeof kMagic) != 0) return false;
  std::uint32_t schema;
  std::memcpy(&schema, file.data() + kSchemaAt, sizeof schema);
  return schema != kSchema;
}

/// Takes an EntryInfo out of its JSON as it is parsed: a tree of values allocates in its destructor, and
/// where that fails the host's process ends. Unknown keys are passed over, if their values are plain.
class MetadataReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// Nothing unless every field was there, with a value of its type.
  std::optional<EntryInfo> result() && {
    return seen_ == kAll ? std::optional(std::move(info_)) : std::nullopt;
  }

  bool start_object(std::size_t) override { return ++depth_ == 1; }
  bool end_object() override { return --depth_ == 0; }
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 1 || key_ != "options") return false;
    ++depth_;
    info_.options.clear();
    return true;
  }
  bool end_array() override {
    --depth_;
    return saw(kOptions);
  }
  bool string(string_t& value) override {
    if (depth_ == 2) {
      info_.options.push_back(std::move(value));
      return true;
    }
    const auto field =
        std::find_if(kTexts.begin(), kTexts.end(), [&](const Text& t) { return t.key == key_; });
    if (field == kTexts.end()) return other();
    info_.*field->member = std::move(value);
    return saw(std::uint32_t{1} << (field - kTexts.begin()));
  }
  bool number_integer(number_integer_t value) override {
    return number(static_cast<double>(value), static_cast<std::int64_t>(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return number(static_cast<double>(value), static_cast<std::int64_t>(value));
  }
  bool number_float(number_float_t value, const string_t&) override {
    if (key_ == "created_us") return false;
    return number(value, 0);
  }
  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool binary(binary_t&) override { return false; }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  struct Text {
    std::string_view key;
    std::string EntryInfo::* member;
  };
  static constexpr std::array<Text, 6> kTexts{{{"digest", &EntryInfo::digest},
                                               {"unit", &EntryInfo::unit},
                                               {"spec", &EntryInfo::spec},
                                               {"tuning", &EntryInfo::tuning},
                                               {"target", &EntryInfo::target},
                                               {"compiler", &EntryInfo::compiler}}};
  static constexpr std::uint32_t kOptions = 1U << 6, kCompileMs = 1U << 7, kCreatedUs = 1U << 8,
                                 kAll = (1U << 9) - 1;

  bool saw(std::uint32_t field) {
    seen_ |= field;
    return true;
  }
  bool number(double value, std::int64_t whole) {
    if (depth_ == 1 && key_ == "compile_ms") {
      info_.compile_ms = value;
      return saw(kCompileMs);
    }
    if (depth_ == 1 && key_ == "created_us") {
      info_.created_us = whole;
      return saw(kCreatedUs);
    }
    return other();
  }
  /// A value that no field takes: harmless, if its key is none of the fields'.
  bool other() const {
    const bool text = std::any_of(kTexts.begin(), kTexts.end(), [&](const Text& t) { return t.key == key_; });
    return depth_ == 1 && !text && key_ != "options" && key_ != "compile_ms" && key_ != "created_us";
  }

  EntryInfo info_;
  std::string key_;
  std::uint32_t seen_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<std::byte> encode_entry(const EntryInfo& info, std::string_view key_text,
                                    std::span<const std::byte> binary) {
  const std::string metadata = metadata_json(info);
  const std::uint64_t total =
      kEntryHeaderBytes + std::uint64_t{metadata.size()} + key_text.size() + binary.size();
  if (metadata.size() > kMaxMetadataBytes || total > kMaxEntryBytes)
    throw codegen::Error(ADAMAS_INTERNAL, "cache entry", std::to_string(total) + " bytes",
                         "must not exceed " + std::to_string(kMaxEntryBytes) + " bytes");
  const Lengths lengths{static_cast<std::uint32_t>(metadata.size()),
                        static_cast<std::uint32_t>(key_text.size()), binary.size()};

  std::vector<std::byte> file(total);
  std::byte* out = file.data() + kCheckedFrom;
  const auto append = [&out](const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(out, from, bytes);
    out += bytes;
  };
  append(&lengths, sizeof lengths);
  append(metadata.data(), metadata.size());
  append(key_text.data(), key_text.size());
  append(binary.data(), binary.size());

  const Digest checksum = digest_of(std::span(file).subspan(kCheckedFrom));
  std::memcpy(file.data(), kMagic, sizeof kMagic);
  std::memcpy(file.data() + kSchemaAt, &kSchema, sizeof kSchema);
  std::memcpy(file.data() + kChecksumAt, checksum.data(), checksum.size());
  return file;
}

DecodedEntry decode_entry(std::span<const std::byte> file) {
  DecodedEntry entry;
  if (has_other_schema(file)) {
    entry.state = EntryState::foreign;
    return entry;
  }
  const std::optional<Lengths> lengths = lengths_of(file, file.size());
  if (!lengths) return entry;
  const Digest checksum = digest_of(file.subspan(kCheckedFrom));
  if (std::memcmp(checksum.data(), file.data() + kChecksumAt, checksum.size()) != 0) return entry;

  const char* text = reinterpret_cast<const char*>(file.data()) + kEntryHeaderBytes;
  const std::optional<EntryInfo> info = decode_metadata({text, lengths->metadata});
  if (!info) return entry;
  entry.state = EntryState::good;
  entry.info = *info;
  entry.key_text = {text + lengths->metadata, lengths->key};
  entry.binary = file.last(lengths->binary);
  return entry;
}

std::optional<std::uint32_t> metadata_bytes(std::span<const std::byte> header, std::uint64_t file_bytes) {
  if (has_other_schema(header)) return std::nullopt;
  const std::optional<Lengths> lengths = lengths_of(header, file_bytes);
  return lengths ? std::optional(lengths->metadata) : std::nullopt;
}

std::optional<EntryInfo> decode_metadata(std::string_view text) {
  MetadataReader reader;
  try {
    if (!nlohmann::json::sax_parse(text, &reader)) return std::nullopt;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
  return std::move(reader).result();
}

}  // namespace adamas::runtime
