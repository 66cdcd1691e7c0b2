// Reading packs: see pack.hpp. Every length and offset is checked before it is used.
#include "runtime/cache/pack.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "codegen/format.hpp"
#include "runtime/cache/digest.hpp"
#include "runtime/cache/folder.hpp"
#include "runtime/cache/pack_format.hpp"

namespace adamas::runtime {

using pack_format::Header;

struct Pack::Record : pack_format::Record {};

namespace {

/// A context of each thread: making one costs as much as unpacking an entry.
ZSTD_DCtx* unpacker() {
  thread_local const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                                     ZSTD_freeDCtx);
  return context.get();
}

std::optional<std::vector<std::byte>> unpack(std::span<const std::byte> stored, std::size_t raw_bytes,
                                             std::span<const std::byte> dictionary) {
  std::vector<std::byte> raw(raw_bytes);
  ZSTD_DCtx_refPrefix(unpacker(), dictionary.data(), dictionary.size());  // for one frame
  const std::size_t got =
      ZSTD_decompressDCtx(unpacker(), raw.data(), raw.size(), stored.data(), stored.size());
  if (ZSTD_isError(got) || got != raw_bytes) return std::nullopt;
  return raw;
}

/// A whole number, or nothing.
std::optional<std::int64_t> parse_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<PackedSet> parse_set(std::string_view line) {
  std::vector<std::string_view> fields;
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find('\t', begin), line.size());
    fields.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  if (fields.size() != 3 && fields.size() != 7) return std::nullopt;
  PackedSet set{.target = std::string(fields[0]), .spec = std::string(fields[1]), .tuning = std::string(fields[2])};
  if (fields.size() == 3) return set;
  const auto batch = parse_number(fields[4]), kv_heads = parse_number(fields[5]), tokens = parse_number(fields[6]);
  if (!batch || !kv_heads || !tokens || *batch < 1 || *kv_heads < 1 || *tokens < 1) return std::nullopt;
  set.device_name = fields[3];
  set.batch = static_cast<int>(*batch), set.kv_heads = static_cast<int>(*kv_heads), set.tokens = *tokens;
  return set;
}

std::optional<std::vector<PackedSet>> parse_sets(std::string_view text) {
  std::vector<PackedSet> sets;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return std::nullopt;
    std::optional<PackedSet> set = parse_set(text.substr(0, end));
    if (!set) return std::nullopt;
    sets.push_back(std::move(*set));
    text.remove_prefix(end + 1);
  }
  if (!std::ranges::is_sorted(sets)) return std::nullopt;
  return sets;
}

}  // namespace

std::shared_ptr<const Pack> Pack::open(const std::string& path, std::string& problem) {
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(path, error).string();
  Opened file = open_file(AT_FDCWD, error ? path : absolute, path);
  if (!file) {
    problem = file.problem;
    return nullptr;
  }
  std::shared_ptr<Pack> pack(new Pack);
  pack->path_ = error ? path : absolute;
  const auto size = static_cast<std::size_t>(file.status.st_size);
  if (size < sizeof(Header)) {
    problem = path + " is no pack: it is shorter than a pack's header";
    return nullptr;
  }
  void* const mapping = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor.get(), 0);
  if (mapping == MAP_FAILED) {
    problem = fmt::format("{} cannot be mapped: {}", path, error_text(errno));
    return nullptr;
  }
  pack->file_ = std::move(file.descriptor);
  pack->bytes_ = {static_cast<const std::byte*>(mapping), size};
  if (const std::string wrong = pack->load(); !wrong.empty()) {
    problem = fmt::format("{} {}", path, wrong);
    return nullptr;
  }
  return pack;
}

Pack::~Pack() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

std::string Pack::load() {
  const std::string damaged = "is damaged; make it anew with adamas precompile";
  Header header;
  std::memcpy(&header, bytes_.data(), sizeof header);
  if (std::memcmp(header.magic, pack_format::kMagic, sizeof header.magic) != 0) return "is no pack";
  if (header.schema != pack_format::kSchema)
    return fmt::format("is of schema {}, this version reads {}; make it anew with adamas precompile", header.schema,
                       pack_format::kSchema);
  // In 64 bits none of these sums can wrap.
  const std::uint64_t index_end = sizeof(Header) + std::uint64_t{header.entries} * sizeof(Record);
  const std::uint64_t sets_end = index_end + header.sets_stored;
  const std::uint64_t front_end = sets_end + header.dictionary;
  if (header.file_bytes != bytes_.size() || front_end > bytes_.size() ||
      header.sets_raw > pack_format::kMaxSetsBytes || header.dictionary > pack_format::kMaxDictionaryBytes)
    return damaged;
  const auto front = bytes_.first(static_cast<std::size_t>(front_end));
  if (digest_of(front.subspan(pack_format::kCheckedFrom)) != header.checksum) return damaged;

  entries_ = header.entries;
  for (std::size_t i = 0; i < entries_; ++i) {
    const Record here = record(i);
    if (here.at < front_end || here.at > bytes_.size() || here.stored > bytes_.size() - here.at ||
        here.raw > kMaxEntryBytes || (i > 0 && !(record(i - 1).digest < here.digest)))
      return damaged;
  }
  const auto stored_sets = front.subspan(static_cast<std::size_t>(index_end), header.sets_stored);
  const auto text = unpack(stored_sets, header.sets_raw, {});
  auto sets = text ? parse_sets({reinterpret_cast<const char*>(text->data()), text->size()}) : std::nullopt;
  if (!sets) return damaged;
  sets_ = std::move(*sets);
  dictionary_ = front.subspan(static_cast<std::size_t>(sets_end));
  return {};
}

Pack::Record Pack::record(std::size_t index) const {
  Record record;
  std::memcpy(&record, bytes_.data() + sizeof(Header) + index * sizeof record, sizeof record);
  return record;
}

/// A mapped page beyond the end of a file that was cut short since is a SIGBUS.
bool Pack::still_whole() const {
  struct stat status{};
  return ::fstat(file_.get(), &status) == 0 && static_cast<std::uint64_t>(status.st_size) >= bytes_.size();
}

std::optional<Pack::Entry> Pack::find(std::string_view digest, std::string_view key_text, bool& damaged) const {
  damaged = !still_whole();
  if (damaged) return std::nullopt;
  std::size_t low = 0, high = entries_;
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    if (hex(record(middle).digest) < digest)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == entries_ || hex(record(low).digest) != digest) return std::nullopt;
  auto entry = read(low);
  damaged = !entry;
  if (entry && entry->key_text != key_text) return std::nullopt;  // two keys of one digest
  return entry;
}

const std::string* Pack::tuning(const std::string& target, const std::string& spec) const {
  const auto found = std::ranges::lower_bound(sets_, PackedSet{.target = target, .spec = spec, .tuning = {}});
  return found != sets_.end() && found->target == target && found->spec == spec ? &found->tuning : nullptr;
}

std::optional<Pack::Entry> Pack::read(std::size_t index) const {
  const Record where = record(index);
  const auto stored = bytes_.subspan(static_cast<std::size_t>(where.at), where.stored);
  // Before the decompressor sees it: it need not cope with damage.
  if (!still_whole() || digest_of(stored) != where.checksum) return std::nullopt;
  const auto raw = unpack(stored, where.raw, dictionary_);
  if (!raw) return std::nullopt;
  const DecodedEntry entry = decode_entry(*raw);
  if (entry.state != EntryState::good || digest_of(entry.key_text) != where.digest) return std::nullopt;
  return Entry{entry.info, std::string(entry.key_text),
               std::make_shared<const std::vector<std::byte>>(entry.binary.begin(), entry.binary.end())};
}

std::string Pack::digest(std::size_t index) const { return hex(record(index).digest); }

std::uint64_t Pack::stored_bytes(std::size_t index) const { return record(index).stored; }

}  // namespace adamas::runtime
