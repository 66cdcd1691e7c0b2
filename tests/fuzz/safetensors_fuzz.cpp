// libFuzzer target: whatever the bytes, the safetensors reader refuses them with its own error or hands out
// tensors that lie inside them, tile the data and are as long as they say.
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <string>
#include <string_view>

#include "codegen/error.hpp"
#include "tools/safetensors.hpp"

namespace {

/// A broken promise of the reader: stop, so that the fuzzer keeps the input.
void require(bool holds) {
  if (!holds) std::abort();
}

void check(const adamas::tools::SafetensorsFile& file, std::span<const std::byte> input) {
  const std::byte* place = nullptr;
  size_t total = 0;
  unsigned touched = 0;
  for (const adamas::tools::Tensor& t : file.tensors()) {
    require(file.find(t.name) == &t);
    require(t.bytes.data() >= input.data() + 8 &&
            t.bytes.data() + t.bytes.size() <= input.data() + input.size());
    require(place == nullptr || t.bytes.data() == place);
    place = t.bytes.data() + t.bytes.size();
    total += t.bytes.size();
    require(t.elements() * static_cast<uint64_t>(dtype_bits(t.dtype)) == 8 * t.bytes.size());
    if (dtype_bits(t.dtype) == 32) {
      for (const uint32_t value : file.copy<uint32_t>(t))
        touched += value;
    }
    for (const std::byte b : t.bytes)
      touched += std::to_integer<unsigned>(b);
  }
  require(place == nullptr || place == input.data() + input.size());
  require(total <= input.size() - 8);
  volatile unsigned keep = touched;  // or the reads could be dropped
  (void)keep;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> input(reinterpret_cast<const std::byte*>(data), size);
  try {
    check(adamas::tools::SafetensorsFile::from_bytes(input, "fuzz"), input);
  } catch (const adamas::codegen::Error& e) {
    require(e.code() == ADAMAS_IO_ERROR && !e.rule().empty());
    require(std::string_view(e.what()).size() < 1000);
  }
  return 0;
}

// Most random changes make the header's length wrong, and then nothing behind it is reached. So it is put
// right in most inputs: the header ends at the last brace.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (size < 8 || seed % 8 == 0) return size;
  const std::string_view text(reinterpret_cast<const char*>(data) + 8, size - 8);
  const size_t brace = text.rfind('}');
  const uint64_t length = brace == text.npos ? text.size() : brace + 1;
  for (unsigned i = 0; i < 8; ++i)
    data[i] = static_cast<uint8_t>(length >> (8 * i));
  return size;
}
