// Writing packs: see pack.hpp.
#include <fcntl.h>
#include <zstd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <future>
#include <mutex>
#include <set>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/target.hpp"
#include "runtime/cache/digest.hpp"
#include "runtime/cache/folder.hpp"
#include "runtime/cache/pack.hpp"
#include "runtime/cache/pack_format.hpp"

namespace adamas::runtime {
namespace {

using pack_format::Header;
using pack_format::Record;

// Higher levels take ten times as long for a twentieth of the size, and are no faster to unpack.
constexpr int kCompressionLevel = 9;

using Dictionary = std::unique_ptr<ZSTD_CDict, std::size_t (*)(ZSTD_CDict*)>;
using Compressor = std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)>;

/// @param dictionary  null: none
std::vector<std::byte> compress(ZSTD_CCtx* compressor, std::span<const std::byte> raw, const ZSTD_CDict* dictionary) {
  std::vector<std::byte> stored(ZSTD_compressBound(raw.size()));
  const std::size_t bytes =
      dictionary == nullptr
          ? ZSTD_compressCCtx(compressor, stored.data(), stored.size(), raw.data(), raw.size(), kCompressionLevel)
          : ZSTD_compress_usingCDict(compressor, stored.data(), stored.size(), raw.data(), raw.size(), dictionary);
  if (ZSTD_isError(bytes))
    throw codegen::Error(ADAMAS_INTERNAL, "pack", fmt::format("{} bytes", raw.size()),
                         std::string("cannot be compressed: ") + ZSTD_getErrorName(bytes));
  stored.resize(bytes);
  return stored;
}

Compressor make_compressor() { return {ZSTD_createCCtx(), ZSTD_freeCCtx}; }

}  // namespace

struct PackWriter::Impl {
  struct Entry {
    std::string kind;  // entries of a kind have sources that are nearly the same
    std::string key_text;
    std::vector<std::byte> raw;
  };
  mutable std::mutex mutex;  // guards what follows
  std::map<Digest, Entry> entries;
  std::set<PackedSet> sets;

  /// The first key of each kind: what the others of the kind repeat.
  std::string dictionary() const {
    std::string text;
    std::set<std::string> kinds;
    for (const auto& [digest, entry] : entries) {
      if (text.size() + entry.key_text.size() > pack_format::kMaxDictionaryBytes) continue;
      if (kinds.insert(entry.kind).second) text += entry.key_text;
    }
    return text;
  }

  std::vector<std::vector<std::byte>> compress_all(std::string_view dictionary_text, int jobs) const {
    const Dictionary dictionary(
        ZSTD_createCDict(dictionary_text.data(), dictionary_text.size(), kCompressionLevel),
        ZSTD_freeCDict);
    std::vector<const Entry*> in_order;
    for (const auto& [digest, entry] : entries)
      in_order.push_back(&entry);
    std::vector<std::vector<std::byte>> blobs(in_order.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
      const Compressor compressor = make_compressor();
      for (std::size_t i; (i = next++) < in_order.size();)
        blobs[i] = compress(compressor.get(), in_order[i]->raw, dictionary.get());
    };
    std::vector<std::future<void>> threads;
    for (int i = 0; i < jobs; ++i)
      threads.push_back(std::async(std::launch::async, work));
    for (auto& thread : threads)
      thread.get();
    return blobs;
  }
};

PackWriter::PackWriter() : impl_(std::make_unique<Impl>()) {}
PackWriter::~PackWriter() = default;

void PackWriter::add(EntryInfo info, std::string_view key_text, std::span<const std::byte> binary) {
  info.created_us = 0;
  info.compile_ms = 0;
  Impl::Entry entry{info.unit + (codegen::is_cuda_target(info.target) ? " cuda" : " cpu"), std::string(key_text),
                    encode_entry(info, key_text, binary)};
  const std::lock_guard lock(impl_->mutex);
  impl_->entries.insert_or_assign(digest_of(key_text), std::move(entry));
}

void PackWriter::add_set(PackedSet set) {
  const std::lock_guard lock(impl_->mutex);
  impl_->sets.insert(std::move(set));
}

std::size_t PackWriter::entries() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->entries.size();
}

std::uint64_t PackWriter::write(const std::string& path, int jobs) const {
  const std::lock_guard lock(impl_->mutex);
  std::string text;
  for (const PackedSet& set : impl_->sets) {
    text += fmt::format("{}\t{}\t{}", set.target, set.spec, set.tuning);
    if (set.batch > 0)
      text += fmt::format("\t{}\t{}\t{}\t{}", set.device_name, set.batch, set.kv_heads, set.tokens);
    text += '\n';
  }
  const std::vector<std::byte> sets = compress(make_compressor().get(), std::as_bytes(std::span(text)), nullptr);
  const std::string dictionary = impl_->dictionary();
  const std::vector<std::vector<std::byte>> blobs = impl_->compress_all(dictionary, jobs);

  const std::uint64_t front_end = sizeof(Header) + blobs.size() * sizeof(Record) + sets.size() + dictionary.size();
  std::uint64_t file_bytes = front_end;
  for (const std::vector<std::byte>& blob : blobs)
    file_bytes += blob.size();

  std::vector<std::byte> file(file_bytes);
  std::byte* front = file.data() + sizeof(Header);
  std::byte* out = file.data() + front_end;
  const auto append = [](std::byte*& to, const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(to, from, bytes);
    to += bytes;
  };
  auto blob = blobs.begin();
  for (const auto& [digest, entry] : impl_->entries) {
    const Record record{digest, digest_of(*blob), static_cast<std::uint64_t>(out - file.data()),
                        static_cast<std::uint32_t>(blob->size()), static_cast<std::uint32_t>(entry.raw.size())};
    append(front, &record, sizeof record);
    append(out, blob->data(), blob->size());
    ++blob;
  }
  append(front, sets.data(), sets.size());
  append(front, dictionary.data(), dictionary.size());

  Header header{};
  std::memcpy(header.magic, pack_format::kMagic, sizeof header.magic);
  header.schema = pack_format::kSchema;
  header.file_bytes = file_bytes;
  header.entries = static_cast<std::uint32_t>(blobs.size());
  header.sets_stored = static_cast<std::uint32_t>(sets.size());
  header.sets_raw = static_cast<std::uint32_t>(text.size());
  header.dictionary = static_cast<std::uint32_t>(dictionary.size());
  std::memcpy(file.data(), &header, sizeof header);
  header.checksum =
      digest_of(std::span(file).first(static_cast<std::size_t>(front_end)).subspan(pack_format::kCheckedFrom));
  std::memcpy(file.data(), &header, sizeof header);

  const std::filesystem::path target(path);
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  // Any folder will do, also one that others may write: a reader checks the file itself.
  const FileDescriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const int error = descriptor ? publish_file(descriptor.get(), target.filename().string(), file, 0644) : errno;
  if (error != 0)
    throw codegen::Error(ADAMAS_IO_ERROR, "pack", path, "cannot be written: " + error_text(error),
                         "name a file in a folder that exists, with room for it");
  return file_bytes;
}

}  // namespace adamas::runtime
