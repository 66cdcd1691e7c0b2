// Counters: see counters.hpp.
#include "counters.hpp"

namespace adamas_python {
namespace {

/// Every field that Python shows; a field more in adamas.h is a line more here.
struct Field {
  const char* name;
  std::uint64_t (*get)(const adamas_counters&);
};
#define ADAMAS_FIELD(name) \
  {#name, [](const adamas_counters& counters) -> std::uint64_t { return counters.name; }}
constexpr Field kFields[] = {
    ADAMAS_FIELD(status),          ADAMAS_FIELD(rows),           ADAMAS_FIELD(tokens_scanned),
    ADAMAS_FIELD(tokens_attended), ADAMAS_FIELD(dense_short),    ADAMAS_FIELD(dense_requested),
    ADAMAS_FIELD(clamped_rows),    ADAMAS_FIELD(tokens_encoded), ADAMAS_FIELD(tokens_checked),
    ADAMAS_FIELD(tokens_stale),    ADAMAS_FIELD(steps),          ADAMAS_FIELD(dense_background)};
#undef ADAMAS_FIELD

}  // namespace

Counters::Counters(ContextHandle context, DeviceId device, const std::optional<ArrayArgument>& memory)
    : context_(std::move(context)), device_(device) {
  if (memory) {
    const Array array = checked_array(
        "memory", memory, device,
        {ElementKind::u8, {{ADAMAS_COUNTERS_BYTES, "bytes", true}}, /*dense=*/true, /*writable=*/true});
    data_ = array.data;
    owner_ = array.owner;
  } else {
    own_ = std::make_shared<const DeviceMemory>(context_, ADAMAS_COUNTERS_BYTES);
    data_ = own_->data();
  }
  clear(nb::none());
  run([&] { return adamas_synchronize(context_.get(), nullptr); });
}

void Counters::clear(const nb::object& stream) const {
  void* const on = stream_of(stream, device_, owner_);
  run([&] { return adamas_counters_clear(context_.get(), data_, on); });
}

nb::dict Counters::read(const nb::object& stream) const {
  void* const on = stream_of(stream, device_, owner_);
  adamas_counters host{};
  run([&] { return adamas_counters_read(context_.get(), data_, &host, on); });
  run([&] { return adamas_synchronize(context_.get(), on); });
  nb::dict values;
  for (const Field& field : kFields)
    values[field.name] = field.get(host);
  return values;
}

void bind_counters(nb::module_& module) {
  nb::class_<Counters>(
      module, "Counters",
      "What the kernels really did: proof that the sparse path ran. Made by Context.counters and "
      "passed to any call;\nkernels add to it on the device, under CUDA-graph replay too.")
      .def("clear", &Counters::clear, nb::arg("stream") = nb::none(),
           "Enqueues setting all counters to zero.")
      .def("read", &Counters::read, nb::arg("stream") = nb::none(),
           "Waits for the stream and returns a dict:\n\n"
           "status           bits: 1 a length was clamped, 2 a page or start outside the cache, 4 a slot to "
           "encode\n"
           "                 outside it, 8 a position that the row does not see\n"
           "rows             query rows x query heads answered, inert ones left out\n"
           "tokens_scanned   codes scored, a K/V head's group counted once\n"
           "tokens_attended  K/V rows attended, counted for each query head\n"
           "dense_short      row-heads attended densely because the row sees <= dense_below tokens\n"
           "dense_requested  row-heads of dense calls\n"
           "clamped_rows     row-heads whose length was clamped\n"
           "tokens_encoded   token-heads written by encode\n"
           "tokens_checked   token-heads that check or rebuild compared\n"
           "tokens_stale     of these, out of step\n"
           "steps            calls of select, attend, decode and dense that the device has carried out\n"
           "dense_background row-heads that decode attended densely because its kernel is not compiled yet")
      .def_prop_ro(
          "address", [](const Counters& self) { return reinterpret_cast<std::uintptr_t>(self.data()); },
          "Address of the block in the device's memory.");
}

}  // namespace adamas_python
