// Memory of tests that call kernels directly: it ends where an unreadable page begins, and one lies before
// it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

namespace adamas::tests {

/// Memory that ends exactly where an inaccessible page begins; filled with 0xff (a NaN in every format).
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (bytes + page - 1) / page * page + 2 * page;
    base_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base_ == MAP_FAILED) throw std::runtime_error("mmap failed");
    auto* const first = static_cast<unsigned char*>(base_);
    mprotect(first, page, PROT_NONE);
    mprotect(first + mapped_ - page, page, PROT_NONE);
    data_ = first + mapped_ - page - bytes;
    std::memset(data_, 0xff, bytes);
  }
  ~Guarded() { munmap(base_, mapped_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }
  std::size_t size() const { return bytes_; }

 private:
  std::size_t bytes_, mapped_ = 0;
  void* base_ = nullptr;
  unsigned char* data_ = nullptr;
};

template <class T>
std::unique_ptr<Guarded> guarded(const std::vector<T>& values) {
  std::unique_ptr<Guarded> buffer = std::make_unique<Guarded>(values.size() * sizeof(T));
  std::copy(values.begin(), values.end(), buffer->as<T>());
  return buffer;
}

}  // namespace adamas::tests
