// Context: see context.hpp.
#include "context.hpp"

#include <array>
#include <charconv>
#include <string_view>

namespace adamas_python {
namespace {

/// Messages of the library, from whatever thread, to logging.getLogger("adamas").
void log_to_python(void*, adamas_log_level level, const char* message) {
  if (Py_IsInitialized() == 0) return;  // a thread that outlives the interpreter
  const nb::gil_scoped_acquire held;
  try {
    nb::module_::import_("logging").attr("getLogger")("adamas").attr(
        level == ADAMAS_LOG_WARNING ? "warning" : "info")("%s", message);
  } catch (nb::python_error& error) {
    error.discard_as_unraisable("adamas: a log handler");
  }
}

constexpr std::array<std::string_view, 4> kPolicies = {"default", "allow", "deny", "background"};

int policy_of(const std::string& name) {
  for (std::size_t i = 0; i < kPolicies.size(); ++i) {
    if (name == kPolicies[i]) return static_cast<int>(i);
  }
  refuse("compile", "'" + name + "'", "'default', 'allow', 'deny' or 'background'");
}

const char* pointer_or_null(const std::optional<std::string>& text) { return text ? text->c_str() : nullptr; }

DeviceId device_of(std::string_view text) {
  DeviceId device;
  constexpr std::string_view kCuda = "cuda:";
  if (!text.starts_with(kCuda)) return device;
  device.type = nb::device::cuda::value;
  std::from_chars(text.data() + kCuda.size(), text.data() + text.size(), device.index);
  return device;
}

}  // namespace

Context::Context(const std::string& device, const std::optional<std::string>& cache_dir, int threads,
                 const std::optional<std::string>& packs, const std::string& compile) {
  adamas_context_options options;
  options.device = device.c_str();
  options.cache_dir = pointer_or_null(cache_dir);
  options.threads = threads;
  options.log = log_to_python;
  options.packs = pointer_or_null(packs);
  options.compile = policy_of(compile);
  adamas_context* context = nullptr;
  run([&] { return adamas_context_create(&options, &context); });
  handle_ = owned<adamas_context, adamas_context_destroy>(context);
  device_ = device_of(info().device);
}

adamas_context_info Context::info() const {
  adamas_context_info info{};
  check(adamas_context_get_info(handle_.get(), &info));
  return info;
}

nb::dict Context::cache_counters() const {
  adamas_cache_counters counters{};
  check(adamas_cache_get_counters(handle_.get(), &counters));
  nb::dict values;
  values["compiles"] = counters.compiles;
  values["hits_memory"] = counters.hits_memory;
  values["hits_pack"] = counters.hits_pack;
  values["hits_folder"] = counters.hits_folder;
  values["misses"] = counters.misses;
  values["waits"] = counters.waits;
  values["wait_timeouts"] = counters.wait_timeouts;
  values["rejected"] = counters.rejected;
  values["fallbacks"] = counters.fallbacks;
  return values;
}

Kernels Context::prepare(const std::string& spec, int max_batch, int kv_heads, std::int64_t max_tokens,
                         std::int64_t max_slots, const std::string& tuning) const {
  const adamas_capacity capacity{
      .max_batch = max_batch, .kv_heads = kv_heads, .max_tokens = max_tokens, .max_slots = max_slots};
  adamas_kernel* kernel = nullptr;
  run([&] { return adamas_prepare(handle_.get(), spec.c_str(), tuning.c_str(), &capacity, &kernel); });
  return Kernels(handle_, device_, kernel, capacity);
}

void Context::calibrate(const std::string& spec, const ArrayArgument& keys,
                        const std::optional<ArrayArgument>& queries, const ArrayArgument& key_thresholds,
                        const std::optional<ArrayArgument>& query_thresholds, const std::string& key_type,
                        const std::string& query_type) const {
  const DeviceId host;
  const std::vector<Extent> rows{{1, "tokens", true}, {1, "heads", true}, {1, "elements", true}};
  const Array key_array = checked_array("keys", keys, host, {kind_of_type(key_type), rows, /*dense=*/true});
  const Array query_array =
      checked_array("queries", queries, host, {kind_of_type(query_type), rows, /*dense=*/true});
  const Wanted wanted{ElementKind::f32,
                      {{key_array.shape[1], "K/V heads"}, {1, "thresholds", true}},
                      /*dense=*/true,
                      /*writable=*/true};
  const Array key_out = checked_array("key_thresholds", key_thresholds, host, wanted);
  const Array query_out = checked_array("query_thresholds", query_thresholds, host, wanted);
  adamas_calibrate_args args;
  args.keys = key_array.data;
  args.key_count = key_array.shape[0];
  args.queries = query_array.data;
  args.query_count = queries ? query_array.shape[0] : 0;
  args.kv_heads = static_cast<int32_t>(key_array.shape[1]);
  args.key_thresholds = key_out.as<float>();
  args.query_thresholds = query_out.as<float>();
  run([&] { return adamas_calibrate(handle_.get(), spec.c_str(), &args); });
}

void Context::synchronize(const nb::object& stream) const {
  void* const on = stream_of(stream, device_, nb::none());
  run([&] { return adamas_synchronize(handle_.get(), on); });
}

void bind_context(nb::module_& module) {
  const auto none = nb::none();
  nb::class_<Context>(module, "Context")
      .def(nb::init<const std::string&, const std::optional<std::string>&, int,
                    const std::optional<std::string>&, const std::string&>(),
           nb::arg("device"), nb::arg("cache_dir").none(), nb::arg("threads"), nb::arg("packs").none(),
           nb::arg("compile"))
      .def_prop_ro(
          "device", [](const Context& self) { return std::string(self.info().device); }, "'cpu' or 'cuda:N'.")
      .def_prop_ro(
          "device_name", [](const Context& self) { return std::string(self.info().device_name); },
          "The maker's name of the device.")
      .def_prop_ro(
          "target", [](const Context& self) { return std::string(self.info().target); },
          "What a kernel that is in no cache would be compiled for.")
      .def_prop_ro(
          "cache_dir", [](const Context& self) { return std::string(self.info().cache_dir); },
          "Folder of the kernel cache; '' when kernels are kept in memory only.")
      .def_prop_ro(
          "compile",
          [](const Context& self) {
            return std::string(kPolicies[static_cast<std::size_t>(self.info().compile)]);
          },
          "'allow', 'deny' or 'background'.")
      .def_prop_ro(
          "packs", [](const Context& self) { return self.info().packs; }, "Packs in use.")
      .def_prop_ro("cache_counters", &Context::cache_counters, "Where kernels came from: a dict.")
      .def("_prepare", &Context::prepare, nb::arg("spec"), nb::arg("max_batch"), nb::arg("kv_heads"),
           nb::arg("max_tokens"), nb::arg("max_slots"), nb::arg("tuning"))
      .def("counters", &Context::counters, nb::arg("memory") = none,
           "Counters in device memory: the context's own, or `memory` [>= COUNTERS_BYTES] uint8 aligned to "
           "16 bytes.\n"
           "Cleared once here.")
      .def("_calibrate", &Context::calibrate, nb::arg("spec"), nb::arg("keys"), nb::arg("queries").none(),
           nb::arg("key_thresholds"), nb::arg("query_thresholds").none(), nb::arg("key_type"),
           nb::arg("query_type"))
      .def("synchronize", &Context::synchronize, nb::arg("stream") = none, "Waits for a stream.");
}

}  // namespace adamas_python
