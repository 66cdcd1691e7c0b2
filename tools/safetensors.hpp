// Reading and writing safetensors files: the form of q/k/v dumps and of thresholds.
//
//   auto file = SafetensorsFile::open("dump.safetensors");
//   const Tensor& k = file.at("layer14.k");              // dtype, shape, bytes inside the mapped file
//   std::vector<uint16_t> halves = file.copy<uint16_t>(k);
//
// A file is untrusted input: every length is checked against the file before anything is allocated or read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace adamas::tools {

/// Element types of the format.
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kF8E4M3,
  kF8E5M2,
  kF8E8M0,
  kU8,
  kI8,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
  kC64,
};

/// The name in a file: "F16".
std::string_view dtype_name(DType dtype);
/// Bits of an element: 16 for F16, 4 for F4.
int dtype_bits(DType dtype);
/// Bytes of a tensor; nothing if the product overflows (in bits) or ends inside a byte.
std::optional<uint64_t> tensor_bytes(DType dtype, const std::vector<uint64_t>& shape);

/// Name of the header's entry that holds metadata, so no name for a tensor.
inline constexpr std::string_view kMetadataKey = "__metadata__";
/// The file begins with the header's length in so many bytes, little-endian.
inline constexpr uint64_t kLengthBytes = 8;

using Metadata = std::map<std::string, std::string>;

/// One tensor of an open file. `bytes` points into the file and lives as long as it; it may be misaligned for
/// the element (the format promises no alignment), so read it with SafetensorsFile::copy or memcpy.
struct Tensor {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;  ///< row-major; empty for a scalar; a dimension may be 0
  std::span<const std::byte> bytes;

  /// Product of the shape; 1 for a scalar.
  uint64_t elements() const;
};

/// A checked file. Moving it keeps tensors' bytes where they are.
class SafetensorsFile {
 public:
  /// Longest header accepted, as in the reference implementation.
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;
  /// Most dimensions of a tensor.
  static constexpr size_t kMaxRank = 64;

  /// Maps the regular file at `path` read-only and checks all of it. Another process must not truncate it
  /// meanwhile. Throws codegen::Error (ADAMAS_IO_ERROR) that names file, tensor and rule.
  static SafetensorsFile open(const std::string& path);
  /// The same for bytes that the caller keeps alive; `name` stands for the path in errors.
  static SafetensorsFile from_bytes(std::span<const std::byte> bytes, std::string name);

  const std::string& path() const { return path_; }
  /// All tensors in the order of their data.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const Metadata& metadata() const { return metadata_; }
  /// The tensor of that name, or null.
  const Tensor* find(std::string_view name) const;
  /// The tensor of that name. Throws codegen::Error if there is none.
  const Tensor& at(std::string_view name) const;

  /// The elements as aligned values of T. Throws codegen::Error if T is not as wide as the element.
  template <class T>
  std::vector<T> copy(const Tensor& tensor) const {
    require_width(tensor, sizeof(T));
    std::vector<T> values(tensor.bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    return values;
  }

 private:
  SafetensorsFile(std::string path, std::span<const std::byte> bytes);
  void require_width(const Tensor& tensor, size_t element_bytes) const;

  std::string path_;
  std::shared_ptr<const void> mapping_;  // null for from_bytes
  std::vector<Tensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;  // name -> place in tensors_
  Metadata metadata_;
};

/// What to write as one tensor; `bytes` (row-major elements) must be as many as dtype and shape say.
struct TensorData {
  std::string name;
  DType dtype = DType::kU8;
  std::vector<uint64_t> shape;
  std::span<const std::byte> bytes;
};

/// Writes a file that readers see whole or not at all: a temporary beside it, fsync, rename. Tensors are laid
/// out by falling element width, so that each is aligned to its element. Replaces an existing file, keeps it
/// on failure. Throws codegen::Error: INVALID_ARGUMENT for tensors that cannot be, IO_ERROR for the file.
void write_safetensors(const std::string& path, const std::vector<TensorData>& tensors,
                       const Metadata& metadata = {});

}  // namespace adamas::tools
