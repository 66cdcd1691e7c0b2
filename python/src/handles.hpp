// Handles of the C interface with their owners, shared by the classes that Python sees.
#pragma once

#include <adamas/adamas.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "array.hpp"
#include "errors.hpp"

namespace adamas_python {

template <class Handle, void (*Destroy)(Handle*)>
std::shared_ptr<Handle> owned(Handle* handle) {
  return std::shared_ptr<Handle>(handle, Destroy);
}

using ContextHandle = std::shared_ptr<adamas_context>;
using KernelHandle = std::shared_ptr<adamas_kernel>;

/// What a call is checked against: the Spec, the capacity and what follows from both.
struct KernelFacts {
  std::map<std::string, std::string> spec;  ///< canonical, every key
  adamas_capacity capacity{};
  DeviceId device;

  int number(const char* key) const { return std::stoi(spec.at(key)); }
  const std::string& text(const char* key) const { return spec.at(key); }
  bool on(const char* key) const { return spec.at(key) == "on"; }

  int head_dim() const { return number("head_dim"); }
  int value_dim() const { return number("value_dim"); }
  int query_heads() const { return capacity.kv_heads * number("group"); }
  /// Thresholds of keys or queries.
  Wanted thresholds() const {
    return {ElementKind::f32,
            {{capacity.kv_heads, "K/V heads"}, {number("buckets") - 1, "thresholds"}},
            /*dense=*/true};
  }
  ElementKind kind(const char* key) const { return kind_of_type(text(key)); }
  bool paged() const { return text("cache_form") != "contiguous" && text("cache_form") != "slots"; }
  bool packed() const { return text("cache_form") == "contiguous" && capacity.max_slots > 0; }
  /// Pages, sequences' rows or slots that the first dimension of K and V holds, and tokens of each.
  std::int64_t pages() const;
  std::int64_t page_tokens() const;
  std::int64_t slots() const { return pages() * page_tokens(); }
};

/// Memory of a context, for counters and workspaces.
class DeviceMemory {
 public:
  DeviceMemory(ContextHandle context, std::uint64_t bytes);
  ~DeviceMemory() { adamas_free(context_.get(), data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  ContextHandle context_;
  void* data_ = nullptr;
  std::uint64_t bytes_ = 0;
};

/// The stream of a launch. Given: an integer (a CUstream), or what has cuda_stream (torch), ptr (CuPy) or
/// __cuda_stream__. Not given: the current stream of the array's library where it is torch or CuPy, else the
/// default.
void* stream_of(const nb::object& given, const DeviceId& device, const nb::object& array);

/// Runs a C function with the GIL released, then raises what it says.
template <class Function>
void run(Function function) {
  adamas_status status;
  {
    const nb::gil_scoped_release released;
    status = function();
  }
  check(status);
}

}  // namespace adamas_python
