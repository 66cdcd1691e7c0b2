// Reading safetensors files. The header is parsed as a stream of JSON events by a small state machine:
// no document is built, nesting is bounded by the states, and a repeated key cannot pass unseen.
#include "tools/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "codegen/error.hpp"
#include "runtime/file_descriptor.hpp"

namespace adamas::tools {
namespace {

using codegen::Error;

struct DTypeInfo {
  DType dtype;
  std::string_view name;
  int bits;
};

constexpr DTypeInfo kDTypes[] = {
    {DType::kBool, "BOOL", 8},      {DType::kF4, "F4", 4},          {DType::kF6E2M3, "F6_E2M3", 6},
    {DType::kF6E3M2, "F6_E3M2", 6}, {DType::kF8E4M3, "F8_E4M3", 8}, {DType::kF8E5M2, "F8_E5M2", 8},
    {DType::kF8E8M0, "F8_E8M0", 8}, {DType::kU8, "U8", 8},          {DType::kI8, "I8", 8},
    {DType::kU16, "U16", 16},       {DType::kI16, "I16", 16},       {DType::kF16, "F16", 16},
    {DType::kBF16, "BF16", 16},     {DType::kU32, "U32", 32},       {DType::kI32, "I32", 32},
    {DType::kF32, "F32", 32},       {DType::kU64, "U64", 64},       {DType::kI64, "I64", 64},
    {DType::kF64, "F64", 64},       {DType::kC64, "C64", 64},
};

const DTypeInfo& info(DType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

constexpr bool table_follows_enum() {
  for (size_t i = 0; i < std::size(kDTypes); ++i) {
    if (static_cast<size_t>(kDTypes[i].dtype) != i) return false;
  }
  return true;
}
static_assert(table_follows_enum(), "kDTypes is indexed by DType");

/// Text of a file for use in a message: bounded, and nothing that could disturb a terminal.
std::string shown(std::string_view text) {
  size_t most = std::min<size_t>(text.size(), 80);
  while (most < text.size() && most > 0 && (text[most] & 0xc0) == 0x80)
    --most;  // not inside a UTF-8 character
  std::string result = "'";
  for (const char c : text.substr(0, most))
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return result + (most < text.size() ? "...'" : "'");
}

Error file_error(const std::string& path, std::string value, std::string rule, std::string hint = {}) {
  return {ADAMAS_IO_ERROR, path, std::move(value), std::move(rule), std::move(hint)};
}

Error system_error(const std::string& path, const std::string& what, int error) {
  return file_error(path, "", what + ": " + std::generic_category().message(error));
}

/// A tensor as the header states it, before its range is checked against the data.
struct Entry {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// Receives JSON events and fills `entries` and `metadata`; throws codegen::Error at the first broken rule.
class HeaderReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& path) : path_(path) {}

  std::vector<Entry> entries;
  Metadata metadata;

  bool null() override { return wrong_type("null"); }
  bool boolean(bool) override { return wrong_type("a boolean"); }
  bool number_float(number_float_t, const string_t& text) override { return wrong_type(text); }
  bool binary(binary_t&) override { return wrong_type("binary data"); }
  bool number_integer(number_integer_t value) override { return wrong_type(std::to_string(value)); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (entry_.shape.size() == SafetensorsFile::kMaxRank) {
        fail("shape", "must have at most " + std::to_string(SafetensorsFile::kMaxRank) + " dimensions");
      }
      entry_.shape.push_back(value);
      return true;
    }
    if (state_ == State::kOffsets) {
      if (offsets_ == 2) fail("data_offsets", "must be [begin, end]");
      (offsets_ == 0 ? entry_.begin : entry_.end) = value;
      ++offsets_;
      return true;
    }
    return wrong_type(std::to_string(value));
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      metadata[key_] = std::move(value);
      return true;
    }
    if (state_ == State::kDType) {
      const auto* const found = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                             [&](const DTypeInfo& d) { return d.name == value; });
      if (found == std::end(kDTypes)) fail("dtype", "is unknown: " + shown(value));
      entry_.dtype = found->dtype;
      state_ = State::kTensor;
      return true;
    }
    return wrong_type("a string");
  }

  bool start_object(std::size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTopValue) {
      if (key_ == kMetadataKey) {
        state_ = State::kMetadata;
      } else {
        entry_ = Entry{};
        entry_.name = key_;
        seen_dtype_ = seen_shape_ = seen_offsets_ = false;
        state_ = State::kTensor;
      }
    } else {
      return wrong_type("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    if (state_ == State::kTop) {
      if (!names_.insert(key_).second) throw file_error(path_, "", place(key_) + " appears twice");
      state_ = State::kTopValue;
    } else if (state_ == State::kMetadata) {
      if (metadata.count(key_) != 0)
        throw file_error(path_, "", "metadata key " + shown(key_) + " appears twice");
    } else if (key_ == "dtype") {
      enter(State::kDType, seen_dtype_);
    } else if (key_ == "shape") {
      enter(State::kShapeValue, seen_shape_);
    } else if (key_ == "data_offsets") {
      offsets_ = 0;
      enter(State::kOffsetsValue, seen_offsets_);
    } else {
      fail("", "may only hold dtype, shape and data_offsets, not " + shown(key_));
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::kMetadata) {
      state_ = State::kTop;
    } else if (state_ == State::kTensor) {
      if (!seen_dtype_) fail("dtype", "is missing");
      if (!seen_shape_) fail("shape", "is missing");
      if (!seen_offsets_) fail("data_offsets", "is missing");
      entries.push_back(std::move(entry_));
      state_ = State::kTop;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kShapeValue) {
      state_ = State::kShape;
    } else if (state_ == State::kOffsetsValue) {
      state_ = State::kOffsets;
    } else {
      return wrong_type("an array");
    }
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) fail("data_offsets", "must be [begin, end]");
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // The library's text repeats the input; its reason, after the last ": ", does not help more than the
    // place.
    const bool range = error.id == 406;  // a number too large even for a double
    throw file_error(path_, "",
                     range ? "header holds a number too large for any tensor, " + where(position)
                           : "header is not valid UTF-8 JSON " + where(position));
  }

 private:
  enum class State {
    kStart,         // before the header's own brace
    kTop,           // between tensors
    kTopValue,      // after a name: a tensor or the metadata must follow
    kMetadata,      // between metadata pairs, or before a value of one
    kTensor,        // between a tensor's fields
    kDType,         // after "dtype"
    kShapeValue,    // after "shape"
    kShape,         // inside its array
    kOffsetsValue,  // after "data_offsets"
    kOffsets,       // inside its array
  };

  static std::string where(std::size_t position) { return "near its byte " + std::to_string(position); }

  static std::string place(const std::string& name) {
    return name == kMetadataKey ? "__metadata__" : "tensor " + shown(name);
  }

  [[noreturn]] void fail(std::string_view field, const std::string& rule) const {
    throw file_error(path_, "",
                     place(entry_.name) + ": " + std::string(field) + (field.empty() ? "" : " ") + rule);
  }

  void enter(State next, bool& seen) {
    if (seen) fail(key_, "appears twice");
    seen = true;
    state_ = next;
  }

  bool wrong_type(const std::string& got) const {
    switch (state_) {
      case State::kStart:
      case State::kTop:
        throw file_error(path_, "", "header must be a JSON object, not " + got);
      case State::kTopValue:
        throw file_error(path_, "", place(key_) + " must be an object, not " + got);
      case State::kMetadata:
        throw file_error(path_, "", "metadata " + shown(key_) + " must be a string, not " + got);
      case State::kDType:
        fail("dtype", "must be a string, not " + got);
      case State::kShapeValue:
        fail("shape", "must be an array, not " + got);
      case State::kShape:
        fail("shape", "must hold whole numbers of 0 .. 2^64-1, not " + got);
      case State::kOffsetsValue:
        fail("data_offsets", "must be an array, not " + got);
      case State::kOffsets:
        fail("data_offsets", "must hold whole numbers of 0 .. 2^64-1, not " + got);
      case State::kTensor:
        break;
    }
    fail("", "has a value of the wrong type: " + got);
  }

  const std::string& path_;
  State state_ = State::kStart;
  std::string key_;
  std::set<std::string> names_;
  Entry entry_;
  int offsets_ = 0;
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false;
};

/// The header's text, with its length checked against the cap and the file.
std::string_view header_text(const std::string& path, std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    throw file_error(path, "", "is truncated: a safetensors file begins with 8 bytes of header length");
  }
  uint64_t length = 0;
  for (uint64_t i = 0; i < kLengthBytes; ++i)
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (length > SafetensorsFile::kMaxHeaderBytes) {
    throw file_error(path, "",
                     "header length " + std::to_string(length) + " is above " +
                         std::to_string(SafetensorsFile::kMaxHeaderBytes),
                     "is it a safetensors file?");
  }
  if (length > bytes.size() - kLengthBytes) {
    throw file_error(path, "",
                     "is truncated: header of " + std::to_string(length) + " bytes in a file of " +
                         std::to_string(bytes.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (text.empty() || text.front() != '{') throw file_error(path, "", "header must begin with '{'");
  // The JSON library takes a NUL for the end of its input and would ignore what follows.
  if (text.find('\0') != text.npos) throw file_error(path, "", "header must not contain a NUL byte");
  return text;
}

/// Checks sizes and that the tensors tile the data exactly: no overlap, no hole, nothing left over.
void check_ranges(const std::string& path, std::vector<Entry>& entries, uint64_t data_bytes) {
  const auto fail = [&](const Entry& e, const std::string& rule) -> Error {
    return file_error(path, "", "tensor " + shown(e.name) + ": " + rule);
  };
  for (const Entry& e : entries) {
    const std::string range = std::string("[") + std::to_string(e.begin) + ", " + std::to_string(e.end) + "]";
    if (e.begin > e.end) throw fail(e, "data_offsets " + range + " must ascend");
    if (e.end > data_bytes) {
      throw fail(e, "data_offsets " + range + " must lie in the file's " + std::to_string(data_bytes) +
                        " bytes of data (truncated?)");
    }
    const std::optional<uint64_t> size = tensor_bytes(e.dtype, e.shape);
    if (!size) throw fail(e, "shape times dtype is not a whole number of bytes below 2^61");
    if (*size != e.end - e.begin) {
      throw fail(e, "data_offsets " + range + " must span the " + std::to_string(*size) +
                        " bytes of its shape and dtype");
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t covered = 0;
  for (const Entry& e : entries) {
    if (e.begin < covered) throw fail(e, "data overlaps that of another tensor");
    if (e.begin > covered) throw fail(e, "data begins after a hole of bytes that belong to no tensor");
    covered = e.end;
  }
  if (covered != data_bytes) {
    throw file_error(path, "",
                     std::to_string(data_bytes - covered) + " bytes at the end belong to no tensor");
  }
}

}  // namespace

std::string_view dtype_name(DType dtype) { return info(dtype).name; }
int dtype_bits(DType dtype) { return info(dtype).bits; }

std::optional<uint64_t> tensor_bytes(DType dtype, const std::vector<uint64_t>& shape) {
  auto bits = static_cast<uint64_t>(info(dtype).bits);
  for (const uint64_t dim : shape) {
    if (__builtin_mul_overflow(bits, dim, &bits)) return std::nullopt;
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

uint64_t Tensor::elements() const {
  uint64_t count = 1;
  for (const uint64_t dim : shape)
    count *= dim;
  return count;
}

SafetensorsFile::SafetensorsFile(std::string path, std::span<const std::byte> bytes)
    : path_(std::move(path)) {
  const std::string_view text = header_text(path_, bytes);
  HeaderReader header(path_);
  nlohmann::json::sax_parse(text.begin(), text.end(), &header);

  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + text.size());
  check_ranges(path_, header.entries, data.size());
  tensors_.reserve(header.entries.size());
  for (Entry& e : header.entries) {
    index_.emplace(e.name, tensors_.size());
    tensors_.push_back(
        {std::move(e.name), e.dtype, std::move(e.shape), data.subspan(e.begin, e.end - e.begin)});
  }
  metadata_ = std::move(header.metadata);
}

SafetensorsFile SafetensorsFile::from_bytes(std::span<const std::byte> bytes, std::string name) {
  return {std::move(name), bytes};
}

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must fail the check below, not wait for its writer.
  const runtime::FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) throw system_error(path, "cannot be opened", errno);
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0) throw system_error(path, "cannot be examined", errno);
  if (!S_ISREG(status.st_mode)) throw file_error(path, "", "must be a regular file");
  const auto size = static_cast<size_t>(status.st_size);
  if (size == 0) return {path, {}};

  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) throw system_error(path, "cannot be mapped", errno);
  std::shared_ptr<const void> mapping(address, [size](void* p) { ::munmap(p, size); });
  SafetensorsFile file(path, {static_cast<const std::byte*>(address), size});
  file.mapping_ = std::move(mapping);
  return file;
}

const Tensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const Tensor& SafetensorsFile::at(std::string_view name) const {
  const Tensor* const tensor = find(name);
  if (tensor == nullptr) throw file_error(path_, "", "has no tensor " + shown(name));
  return *tensor;
}

void SafetensorsFile::require_width(const Tensor& tensor, size_t element_bytes) const {
  if (static_cast<size_t>(dtype_bits(tensor.dtype)) == 8 * element_bytes) return;
  throw file_error(path_, "",
                   "tensor " + shown(tensor.name) + ": dtype " + std::string(dtype_name(tensor.dtype)) +
                       " must have elements of " + std::to_string(element_bytes) + " bytes here");
}

}  // namespace adamas::tools
