// Writing packs: see pack.hpp.
#include <fcntl.h>
#include <fmt/format.h>
#include <zstd.h>

#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>

#include "codegen/error.hpp"
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

std::vector<std::byte> compress(std::span<const std::byte> raw) {
  std::vector<std::byte> stored(ZSTD_compressBound(raw.size()));
  const std::size_t bytes =
      ZSTD_compress(stored.data(), stored.size(), raw.data(), raw.size(), kCompressionLevel);
  if (ZSTD_isError(bytes))
    throw codegen::Error(ADAMAS_INTERNAL, "pack", fmt::format("{} bytes", raw.size()),
                         std::string("cannot be compressed: ") + ZSTD_getErrorName(bytes));
  stored.resize(bytes);
  return stored;
}

}  // namespace

struct PackWriter::Impl {
  struct Blob {
    std::vector<std::byte> stored;
    std::uint32_t raw;
  };
  mutable std::mutex mutex;  // guards what follows; never held while something is compressed
  std::map<Digest, Blob> blobs;
  std::set<PackedSet> sets;
};

PackWriter::PackWriter() : impl_(std::make_unique<Impl>()) {}
PackWriter::~PackWriter() = default;

void PackWriter::add(EntryInfo info, std::string_view key_text, std::span<const std::byte> binary) {
  info.created_us = 0;
  info.compile_ms = 0;
  const std::vector<std::byte> raw = encode_entry(info, key_text, binary);
  Impl::Blob blob{compress(raw), static_cast<std::uint32_t>(raw.size())};
  const std::lock_guard lock(impl_->mutex);
  impl_->blobs.insert_or_assign(digest_of(key_text), std::move(blob));
}

void PackWriter::add_set(PackedSet set) {
  const std::lock_guard lock(impl_->mutex);
  impl_->sets.insert(std::move(set));
}

std::size_t PackWriter::entries() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->blobs.size();
}

std::uint64_t PackWriter::write(const std::string& path) const {
  const std::lock_guard lock(impl_->mutex);
  std::string text;
  for (const PackedSet& set : impl_->sets)
    text += fmt::format("{}\t{}\t{}\n", set.target, set.spec, set.tuning);
  const std::vector<std::byte> sets = compress(std::as_bytes(std::span(text)));

  const std::uint64_t front_end = sizeof(Header) + impl_->blobs.size() * sizeof(Record) + sets.size();
  std::uint64_t file_bytes = front_end;
  for (const auto& [digest, blob] : impl_->blobs)
    file_bytes += blob.stored.size();

  std::vector<std::byte> file(file_bytes);
  std::byte* index = file.data() + sizeof(Header);
  std::byte* out = file.data() + front_end;
  for (const auto& [digest, blob] : impl_->blobs) {
    const Record record{digest, digest_of(blob.stored), static_cast<std::uint64_t>(out - file.data()),
                        static_cast<std::uint32_t>(blob.stored.size()), blob.raw};
    std::memcpy(index, &record, sizeof record);
    index += sizeof record;
    std::memcpy(out, blob.stored.data(), blob.stored.size());
    out += blob.stored.size();
  }
  std::memcpy(index, sets.data(), sets.size());

  Header header{};
  std::memcpy(header.magic, pack_format::kMagic, sizeof header.magic);
  header.schema = pack_format::kSchema;
  header.file_bytes = file_bytes;
  header.entries = static_cast<std::uint32_t>(impl_->blobs.size());
  header.sets_stored = static_cast<std::uint32_t>(sets.size());
  header.sets_raw = static_cast<std::uint32_t>(text.size());
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
