// Memory for tests, of either device. On the CPU every buffer ends at an unreadable page and begins after
// one, so that a read or write outside faults at once.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

namespace adamas::tests {

class DeviceMemory {
 public:
  /// @param fill  every byte's first value; 0xff makes floats of every type NaN and integers -1
  DeviceMemory(const Context& context, std::size_t bytes, unsigned char fill = 0xff)
      : context_(&context), bytes_(bytes), guarded_(std::string(context.info().device) == "cpu") {
    if (guarded_) {
      map();
    } else {
      void* pointer = nullptr;
      detail::check(adamas_alloc(context.get(), bytes, &pointer));
      data_ = static_cast<std::byte*>(pointer);
    }
    const std::vector<std::byte> initial(bytes, static_cast<std::byte>(fill));
    write(initial.data(), bytes);
  }
  DeviceMemory(DeviceMemory&& other) noexcept
      : context_(other.context_),
        bytes_(other.bytes_),
        guarded_(other.guarded_),
        data_(other.data_),
        mapping_(other.mapping_),
        mapped_(other.mapped_) {
    other.data_ = nullptr;
    other.mapping_ = nullptr;
  }
  DeviceMemory& operator=(DeviceMemory&&) = delete;
  ~DeviceMemory() {
    if (guarded_) {
      if (mapping_ != nullptr) munmap(mapping_, mapped_);
    } else if (data_ != nullptr) {
      adamas_free(context_->get(), data_);
    }
  }

  template <class T>
  static DeviceMemory of(const Context& context, const std::vector<T>& values) {
    DeviceMemory memory(context, values.size() * sizeof(T));
    memory.write(values.data(), memory.bytes_);
    return memory;
  }

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  void* data() const { return data_; }
  std::size_t size() const { return bytes_; }

  void write(const void* from, std::size_t bytes) const {
    if (bytes > 0)
      detail::check(adamas_copy(context_->get(), data_, from, bytes, ADAMAS_HOST_TO_DEVICE, nullptr));
  }
  template <class T>
  std::vector<T> read() const {
    std::vector<T> values(bytes_ / sizeof(T));
    if (bytes_ > 0) {
      detail::check(
          adamas_copy(context_->get(), values.data(), data_, bytes_, ADAMAS_DEVICE_TO_HOST, nullptr));
    }
    return values;
  }

 private:
  void map() {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inside = (bytes_ + page - 1) / page * page;
    mapped_ = inside + 2 * page;
    void* mapping = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = mapping;
    auto* begin = static_cast<std::byte*>(mapping) + page;
    if (inside > 0 && mprotect(begin, inside, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    data_ = begin + (inside - bytes_);
  }

  const Context* context_;
  std::size_t bytes_;
  bool guarded_;
  std::byte* data_ = nullptr;
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
};

}  // namespace adamas::tests
