// The state file: see state.hpp.
//
//   magic (8) | schema (4) | zero (4) | pruned_us (8) | since_us (8) | counters (8 each) | checksum (16)
#include "runtime/cache/state.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>

#include "runtime/cache/digest.hpp"

namespace adamas::runtime {
namespace {

constexpr char kMagic[8] = {'A', 'D', 'A', 'M', 'A', 'S', 'S', '\n'};
constexpr std::uint32_t kSchema = 1;

struct Record {
  char magic[8];
  std::uint32_t schema, zero;
  std::int64_t pruned_us, since_us;
  CacheCounters counters;
  Digest checksum;
};
static_assert(sizeof(CacheCounters) % sizeof(std::uint64_t) == 0);
static_assert(sizeof(Record) == 32 + sizeof(CacheCounters) + sizeof(Digest), "no padding: it is hashed");

Digest checksum_of(const Record& record) {
  return digest_of(std::as_bytes(std::span(&record, 1)).first(offsetof(Record, checksum)));
}

struct flock byte_lock(std::int64_t at, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(at);
  lock.l_len = 1;
  return lock;
}

}  // namespace

std::int64_t lock_of_key(std::string_view digest) {
  // 60 bits of the digest, moved beyond the bytes with a meaning of their own. Two keys that share them only
  // wait for each other.
  std::uint64_t bits = 0;
  std::from_chars(digest.data(), digest.data() + std::min<std::size_t>(digest.size(), 15), bits, 16);
  return static_cast<std::int64_t>((std::uint64_t{1} << 60) + bits);
}

StateFile::Attempt StateFile::try_lock(std::int64_t at) {
  if (!file_) return Attempt::impossible;
  struct flock lock = byte_lock(at, F_WRLCK);
  while (::fcntl(file_.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EACCES ? Attempt::busy : Attempt::impossible;
  }
  return Attempt::taken;
}

bool StateFile::lock_briefly(std::int64_t at) {
  constexpr int kTries = 50;
  for (int i = 0; i < kTries; ++i) {
    const Attempt attempt = try_lock(at);
    if (attempt != Attempt::busy) return attempt == Attempt::taken;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return false;
}

void StateFile::unlock(std::int64_t at) {
  struct flock lock = byte_lock(at, F_UNLCK);
  ::fcntl(file_.get(), F_OFD_SETLK, &lock);
}

FolderState StateFile::read() const {
  FolderState state;
  Record record;
  if (!file_ || ::pread(file_.get(), &record, sizeof record, 0) != sizeof record) return state;
  if (std::memcmp(record.magic, kMagic, sizeof kMagic) != 0 || record.schema != kSchema ||
      record.checksum != checksum_of(record))
    return state;
  state.pruned_us = record.pruned_us;
  state.totals.since_us = record.since_us;
  static_cast<CacheCounters&>(state.totals) = record.counters;
  return state;
}

bool StateFile::write(const FolderState& state) {
  Record record{};
  std::memcpy(record.magic, kMagic, sizeof kMagic);
  record.schema = kSchema;
  record.pruned_us = state.pruned_us;
  record.since_us = state.totals.since_us;
  record.counters = state.totals;
  record.checksum = checksum_of(record);
  return file_ && ::pwrite(file_.get(), &record, sizeof record, 0) == sizeof record;
}

}  // namespace adamas::runtime
