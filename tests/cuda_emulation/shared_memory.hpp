// The dynamic shared memory of an emulated block. It begins as garbage, and what lies around it is guarded.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <vector>

namespace adamas::cuda_emulation {

class SharedMemory {
 public:
  /// @param garbage  what every byte holds before the block writes it
  SharedMemory(std::size_t bytes, unsigned char garbage)
      : bytes_(bytes), words_(bytes / sizeof(Word) + 1 + 2 * kGuardWords) {
    std::fill_n(reinterpret_cast<unsigned char*>(words_.data()), words_.size() * sizeof(Word), kGuard);
    std::fill_n(data(), bytes, garbage);
  }

  unsigned char* data() { return reinterpret_cast<unsigned char*>(words_.data() + kGuardWords); }
  std::size_t bytes() const { return bytes_; }

  /// @throws std::runtime_error if the block wrote outside its memory.
  void check_guards() {
    const auto* first = reinterpret_cast<unsigned char*>(words_.data());
    const auto is_guard = [](unsigned char byte) { return byte == kGuard; };
    if (!std::all_of(first, static_cast<const unsigned char*>(data()), is_guard) ||
        !std::all_of(static_cast<const unsigned char*>(data()) + bytes_, first + words_.size() * sizeof(Word),
                     is_guard)) {
      throw std::runtime_error("a block wrote outside its shared memory");
    }
  }

 private:
  static constexpr unsigned char kGuard = 0x5c;
  static constexpr std::size_t kGuardWords = 8;

  struct alignas(128) Word {
    unsigned char bytes[128];
  };

  std::size_t bytes_;
  std::vector<Word> words_;
};

}  // namespace adamas::cuda_emulation
