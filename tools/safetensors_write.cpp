// Writing safetensors files: a header padded to 8 bytes, data by falling element width, published by a
// rename.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "codegen/error.hpp"
#include "runtime/file_descriptor.hpp"
#include "tools/safetensors.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;

Error system_error(const std::string& path, const std::string& what, int error) {
  return {ADAMAS_IO_ERROR, path, "", what + ": " + std::generic_category().message(error)};
}

/// Header text (padded to 8 bytes) of tensors in the order of their data.
std::string make_header(const std::string& path, const std::vector<const TensorData*>& order,
                        const Metadata& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[std::string(kMetadataKey)] = metadata;
  uint64_t offset = 0;
  for (const TensorData* t : order) {
    header[t->name] = {{"dtype", dtype_name(t->dtype)},
                       {"shape", t->shape},
                       {"data_offsets", {offset, offset + t->bytes.size()}}};
    offset += t->bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::type_error&) {
    throw Error(ADAMAS_INVALID_ARGUMENT, path, "", "names and metadata must be valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > SafetensorsFile::kMaxHeaderBytes) {
    throw Error(ADAMAS_INVALID_ARGUMENT, path, std::to_string(text.size()),
                "header must not be above " + std::to_string(SafetensorsFile::kMaxHeaderBytes) + " bytes");
  }
  return text;
}

void check_tensors(const std::string& path, const std::vector<TensorData>& tensors) {
  std::set<std::string_view> names;
  for (const TensorData& t : tensors) {
    const auto fail = [&](const std::string& rule) {
      return Error(ADAMAS_INVALID_ARGUMENT, path, "", "tensor '" + t.name + "': " + rule);
    };
    if (t.name == kMetadataKey) throw fail("the name is reserved for metadata");
    if (!names.insert(t.name).second) throw fail("the name is given twice");
    if (t.shape.size() > SafetensorsFile::kMaxRank) {
      throw fail("shape must have at most " + std::to_string(SafetensorsFile::kMaxRank) + " dimensions");
    }
    if (tensor_bytes(t.dtype, t.shape) != t.bytes.size()) {
      throw fail(std::to_string(t.bytes.size()) + " bytes given, not what its shape and dtype need");
    }
  }
}

void write_all(const std::string& path, int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw system_error(path, "cannot be written", errno);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

/// Creates a file beside `path` that nobody else has; its name goes to `temporary`. The mode obeys the umask,
/// which mkstemp would not.
int create_beside(const std::string& path, std::string& temporary) {
  static std::atomic<unsigned> counter{0};
  for (int attempt = 0; attempt < 100; ++attempt) {
    temporary = path + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(counter++);
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) return fd;
    if (errno != EEXIST) break;
  }
  throw system_error(path, "cannot be created", errno);
}

/// Makes the rename itself durable. A folder that cannot be synced (some network file systems) is no failure:
/// the file is whole either way.
void sync_folder(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == path.npos ? "." : path.substr(0, slash + 1);
  const runtime::FileDescriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) ::fsync(fd.get());
}

}  // namespace

void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const Metadata& metadata) {
  check_tensors(path, tensors);
  std::vector<const TensorData*> order;
  for (const TensorData& t : tensors)
    order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](const TensorData* a, const TensorData* b) {
    return dtype_bits(a->dtype) > dtype_bits(b->dtype);
  });
  const std::string header = make_header(path, order, metadata);
  std::byte length[kLengthBytes];
  for (uint64_t i = 0; i < kLengthBytes; ++i)
    length[i] = static_cast<std::byte>(header.size() >> (8 * i));

  std::string temporary;
  const runtime::FileDescriptor fd(create_beside(path, temporary));
  try {
    write_all(path, fd.get(), length);
    write_all(path, fd.get(), std::as_bytes(std::span(header)));
    for (const TensorData* t : order)
      write_all(path, fd.get(), t->bytes);
    // Before the rename: else a crash could leave the new name on unwritten data.
    if (::fsync(fd.get()) != 0) throw system_error(path, "cannot be written", errno);
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw system_error(path, "cannot be replaced", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(path);
}

}  // namespace adamas::tools
