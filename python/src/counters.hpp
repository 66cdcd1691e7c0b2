// Counters: what the kernels really did, in device memory, one table of fields for all that show them.
#pragma once

#include <optional>
#include <variant>

#include "handles.hpp"

namespace adamas_python {

class Counters {
 public:
  /// @param memory  a dense array of at least `bytes` bytes, aligned to 16; none: the context's own
  Counters(ContextHandle context, DeviceId device, const std::optional<ArrayArgument>& memory);

  void* data() const { return data_; }
  void clear(const nb::object& stream) const;
  /// Waits for the stream.
  nb::dict read(const nb::object& stream) const;

 private:
  ContextHandle context_;
  DeviceId device_;
  nb::object owner_ = nb::none();
  std::shared_ptr<const DeviceMemory> own_;
  void* data_ = nullptr;
};

void bind_counters(nb::module_& module);

/// What an optional argument `counters` means to the C interface.
inline void* counters_of(const Counters* counters) {
  return counters == nullptr ? nullptr : counters->data();
}

}  // namespace adamas_python
