// Handles and what goes with them: see handles.hpp.
#include "handles.hpp"

namespace adamas_python {

std::int64_t KernelFacts::page_tokens() const {
  if (text("cache_form") == "slots") return 1;
  if (paged()) return number("page_size");
  return packed() ? capacity.max_slots : capacity.max_tokens;
}

std::int64_t KernelFacts::pages() const {
  if (text("cache_form") == "contiguous") return packed() ? 1 : capacity.max_batch;
  const std::int64_t page = page_tokens();
  if (capacity.max_slots > 0) return (capacity.max_slots + page - 1) / page;
  return capacity.max_batch * ((capacity.max_tokens + page - 1) / page);
}

DeviceMemory::DeviceMemory(ContextHandle context, std::uint64_t bytes)
    : context_(std::move(context)), bytes_(bytes) {
  run([&] { return adamas_alloc(context_.get(), bytes_, &data_); });
}

void* stream_of(const nb::object& given, const DeviceId& device, const nb::object& array) {
  if (device.type == nb::device::cpu::value) return nullptr;
  const auto pointer = [](const nb::object& number) {
    return reinterpret_cast<void*>(nb::cast<std::uintptr_t>(nb::int_(number)));
  };
  if (!given.is_none()) {
    if (nb::isinstance<nb::int_>(given)) return pointer(given);
    for (const char* name : {"cuda_stream", "ptr"}) {
      if (nb::hasattr(given, name)) return pointer(given.attr(name));
    }
    if (nb::hasattr(given, "__cuda_stream__")) return pointer(given.attr("__cuda_stream__")()[1]);
    refuse("stream", text_of(given, PyObject_Repr),
           "a CUstream as an integer, or a stream of torch, CuPy or cuda.core");
  }
  const auto module = text_of(array.type().attr("__module__"));
  if (module.starts_with("torch"))
    return pointer(
        nb::module_::import_("torch").attr("cuda").attr("current_stream")(device.index).attr("cuda_stream"));
  if (module.starts_with("cupy"))
    return pointer(nb::module_::import_("cupy").attr("cuda").attr("get_current_stream")().attr("ptr"));
  return nullptr;
}

}  // namespace adamas_python
