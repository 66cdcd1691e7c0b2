// Kernels: see kernels.hpp.
#include "kernels.hpp"

#include <nanobind/stl/pair.h>

#include <sstream>

namespace adamas_python {

Kernels::Kernels(ContextHandle context, DeviceId device, adamas_kernel* kernel,
                 const adamas_capacity& capacity)
    : context_(std::move(context)), kernel_(owned<adamas_kernel, adamas_kernel_destroy>(kernel)) {
  const adamas_kernel_info made = info();
  code_bytes_ = made.code_bytes;
  KernelFacts facts{.spec = {}, .capacity = capacity, .device = device};
  std::istringstream words{std::string(made.spec)};
  for (std::string word; words >> word;)
    facts.spec[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  facts_ = std::make_shared<const KernelFacts>(std::move(facts));
}

adamas_kernel_info Kernels::info() const {
  adamas_kernel_info info{};
  check(adamas_kernel_get_info(kernel_.get(), &info));
  return info;
}

template <class Arguments>
Kernels::KeysArrays Kernels::put_keys(Arguments& args, const CacheView& cache, const ArrayArgument& codes,
                                      bool writable, const ArrayArgument& key_thresholds,
                                      const std::optional<ArrayArgument>& slots, std::int64_t first_slot,
                                      std::optional<std::int64_t> count, const Counters* counters) const {
  KeysArrays arrays;
  args.cache = cache.get();
  arrays.codes = checked_codes(codes, *facts_, code_bytes_, writable);
  args.codes = arrays.codes.data;
  arrays.thresholds = checked_array("key_thresholds", key_thresholds, facts_->device, facts_->thresholds());
  args.key_thresholds = arrays.thresholds.template as<const float>();
  arrays.slots =
      checked_array("slots", slots, facts_->device, {ElementKind::i32, {{0, "slots", true}}, /*dense=*/true});
  if (slots) {
    if (count) refuse("count", std::to_string(*count), "None where slots are listed");
    if (cache.slots() < facts_->slots())
      refuse("slots", "an array for a cache of " + std::to_string(cache.slots()) + " slots",
             "a cache of all " + std::to_string(facts_->slots()) + " slots where they are listed");
    args.slots = arrays.slots.template as<const int32_t>();
    args.count = arrays.slots.shape[0];
  } else {
    args.first_slot = first_slot;
    args.count = count.value_or(cache.slots() - first_slot);
    if (args.count > cache.slots() - first_slot)
      refuse("count", std::to_string(args.count),
             "at most the " + std::to_string(cache.slots() - first_slot) +
                 " slots that the cache has from there");
  }
  args.counters = counters_of(counters);
  return arrays;
}

void Kernels::encode(const CacheView& cache, const ArrayArgument& codes, const ArrayArgument& key_thresholds,
                     const std::optional<ArrayArgument>& slots, std::int64_t first_slot,
                     std::optional<std::int64_t> count, const Counters* counters,
                     const nb::object& stream) const {
  adamas_encode_args args;
  const KeysArrays arrays =
      put_keys(args, cache, codes, /*writable=*/true, key_thresholds, slots, first_slot, count, counters);
  if (slots && args.count == 0) return;  // and its address may be null
  void* const on = stream_of(stream, facts_->device, cache.keys());
  run([&] { return adamas_encode(kernel_.get(), &args, on); });
}

void Kernels::check_codes(CheckOperation operation, const CacheView& cache, const ArrayArgument& codes,
                          const ArrayArgument& key_thresholds, const std::optional<ArrayArgument>& slots,
                          std::int64_t first_slot, std::optional<std::int64_t> count,
                          const std::optional<ArrayArgument>& stale, const Counters* counters,
                          const nb::object& stream) const {
  adamas_check_args args;
  const KeysArrays arrays = put_keys(args, cache, codes, /*writable=*/operation == adamas_rebuild,
                                     key_thresholds, slots, first_slot, count, counters);
  const Array stale_array = checked_array("stale", stale, facts_->device,
                                          {ElementKind::u8,
                                           {{args.count, "slots"}, {facts_->capacity.kv_heads, "K/V heads"}},
                                           /*dense=*/true,
                                           /*writable=*/true});
  args.stale = stale_array.as<uint8_t>();
  if (slots && args.count == 0) return;
  void* const on = stream_of(stream, facts_->device, cache.keys());
  run([&] { return operation(kernel_.get(), &args, on); });
}

void Kernels::convert(CodesOperation operation, const ArrayArgument& codes, const ArrayArgument& bytes,
                      std::int64_t first_slot, const nb::object& stream) const {
  const bool exports = operation == adamas_codes_export;
  const Array code_array = checked_codes(codes, *facts_, code_bytes_, !exports);
  const Array byte_array = checked_array(
      "bytes", bytes, facts_->device,
      {ElementKind::u8,
       {{0, "slots", true}, {facts_->capacity.kv_heads, "K/V heads"}, {facts_->head_dim(), "elements"}},
       /*dense=*/true,
       /*writable=*/exports});
  adamas_codes_args args;
  args.codes = code_array.data;
  args.bytes = byte_array.as<uint8_t>();
  args.first_slot = first_slot;
  args.count = byte_array.shape[0];
  if (args.count == 0) return;
  void* const on = stream_of(stream, facts_->device, codes.object);
  run([&] { return operation(kernel_.get(), &args, on); });
}

std::optional<Kernels> Kernels::refresh(const nb::object& stream) const {
  adamas_kernel* kernel = nullptr;
  void* const on = stream_of(stream, facts_->device, nb::none());
  adamas_status status;
  {
    const nb::gil_scoped_release released;
    status = adamas_refresh(kernel_.get(), on, &kernel);
  }
  if (status == ADAMAS_TIMEOUT) return std::nullopt;
  check(status);
  return Kernels(context_, facts_->device, kernel, facts_->capacity);
}

namespace {

const char* state_name(int state) {
  switch (state) {
    case ADAMAS_KERNEL_COMPLETE:
      return "complete";
    case ADAMAS_KERNEL_DENSE:
      return "dense";
    case ADAMAS_KERNEL_DENSE_REFRESHABLE:
      return "dense_refreshable";
    default:
      return "dense_failed";
  }
}

constexpr char kCache[] =
    "Checks a layer's K and V once and keeps them, for any number of calls; their content may change "
    "meanwhile.\n\n"
    "Shapes by cache_form (strides are free, the last dimension dense; of kv_type, q8_0 as uint8 blocks):\n"
    "contiguous   keys [sequences, >= max_tokens, kv_heads, head_dim]; with max_slots [slots, kv_heads, "
    "head_dim]\n"
    "block_table  keys [pages, page_size, kv_heads, head_dim], table [batch, pages of a sequence] int32\n"
    "slots        keys [slots, kv_heads, head_dim], table [batch, max_tokens] int32\n"
    "csr          keys [pages, page_size, kv_heads, head_dim], table [entries] int32, indptr [batch + 1] "
    "int32\n"
    "pointers     page_addresses [pages] int64, key_offset and value_offset in bytes, key_strides and "
    "value_strides\n"
    "             (token, head) in elements, table as block_table\n"
    "values as keys with value_dim; encode needs neither values nor table. value_table: as table, with "
    "tables=split.\n"
    "key_scale, value_scale: [1] or [kv_heads] float32, with kv_type=f8e4m3fn.";

}  // namespace

void bind_kernels(nb::module_& module) {
  nb::class_<CacheView>(module, "Cache",
                        "K and V of one layer as the host keeps them. Made by Kernels.cache.")
      .def_prop_ro("slots", &CacheView::slots, "Physical token slots that the arrays hold.")
      .def_prop_ro("batch", &CacheView::batch, "Sequences that rows or tables serve.");

  const auto text = [](const char* const adamas_kernel_info::*field) {
    return [field](const Kernels& self) { return std::string(self.info().*field); };
  };
  const auto none = nb::none();
  nb::class_<Kernels> kernels(
      module, "Kernels",
      "The compiled and loaded kernels of one Spec. Immutable, usable from any thread; made by "
      "Context.prepare.");
  kernels
      .def_prop_ro("spec", text(&adamas_kernel_info::spec), "Canonical Spec, every key. Spec.parse takes it.")
      .def_prop_ro("tuning", text(&adamas_kernel_info::tuning), "Canonical Tuning.")
      .def_prop_ro("target", text(&adamas_kernel_info::target), "What was loaded: 'sm_90a', 'x86-64-v3'.")
      .def_prop_ro("layout_id", text(&adamas_kernel_info::layout_id),
                   "Names the code layout; codes of equal id and capacity are interchangeable.")
      .def_prop_ro(
          "state", [](const Kernels& self) { return state_name(self.info().state); },
          "'complete'; with compile='background' also 'dense', 'dense_refreshable', 'dense_failed'.")
      .def_prop_ro(
          "compiles", [](const Kernels& self) { return self.info().compiles; },
          "Binaries that prepare compiled; the rest came from a pack, the cache or memory.")
      .def_prop_ro(
          "compile_ms", [](const Kernels& self) { return self.info().compile_ms; },
          "Wall time of the compiles.")
      .def_prop_ro(
          "load_ms", [](const Kernels& self) { return self.info().load_ms; }, "Wall time of everything else.")
      .def_prop_ro(
          "code_bytes", [](const Kernels& self) { return self.info().code_bytes; },
          "Bytes of an array of codes, for all slots and K/V heads.")
      .def_prop_ro(
          "code_row_bytes", [](const Kernels& self) { return self.info().code_row_bytes; },
          "Bytes of one token's codes of one head.")
      .def_prop_ro(
          "max_batch", [](const Kernels& self) { return self.facts().capacity.max_batch; }, "As prepared.")
      .def_prop_ro(
          "kv_heads", [](const Kernels& self) { return self.facts().capacity.kv_heads; }, "As prepared.")
      .def_prop_ro(
          "max_tokens", [](const Kernels& self) { return self.facts().capacity.max_tokens; }, "As prepared.")
      .def_prop_ro(
          "slots", [](const Kernels& self) { return self.facts().slots(); },
          "Physical slots of a whole cache.")
      .def("plan", &Kernels::plan, nb::arg("batch"), nb::kw_only(), nb::arg("dense_below") = -1,
           nb::arg("own_workspace") = true,
           "A Plan for calls of `batch` sequences. Rows that see at most dense_below tokens attend to all of "
           "them;\n"
           "negative: the budget. Allocates a workspace unless own_workspace=False.")
      .def(
          "cache",
          [](const Kernels& self, std::optional<ArrayArgument> keys, std::optional<ArrayArgument> values,
             std::optional<ArrayArgument> table, std::optional<ArrayArgument> value_table,
             std::optional<ArrayArgument> indptr, std::optional<ArrayArgument> page_addresses,
             std::int64_t key_offset, std::int64_t value_offset,
             std::optional<std::pair<std::int64_t, std::int64_t>> key_strides,
             std::optional<std::pair<std::int64_t, std::int64_t>> value_strides,
             std::optional<ArrayArgument> key_scale, std::optional<ArrayArgument> value_scale) {
            return self.cache({.keys = std::move(keys),
                               .values = std::move(values),
                               .table = std::move(table),
                               .value_table = std::move(value_table),
                               .indptr = std::move(indptr),
                               .page_addresses = std::move(page_addresses),
                               .key_scale = std::move(key_scale),
                               .value_scale = std::move(value_scale),
                               .key_offset = key_offset,
                               .value_offset = value_offset,
                               .key_strides = key_strides,
                               .value_strides = value_strides});
          },
          nb::arg("keys") = none, nb::arg("values") = none, nb::arg("table") = none, nb::kw_only(),
          nb::arg("value_table") = none, nb::arg("indptr") = none, nb::arg("page_addresses") = none,
          nb::arg("key_offset") = 0, nb::arg("value_offset") = 0, nb::arg("key_strides") = none,
          nb::arg("value_strides") = none, nb::arg("key_scale") = none, nb::arg("value_scale") = none, kCache)
      .def("encode", &Kernels::encode, nb::arg("cache"), nb::arg("codes"), nb::arg("key_thresholds"),
           nb::kw_only(), nb::arg("slots") = none, nb::arg("first_slot") = 0, nb::arg("count") = none,
           nb::arg("counters") = none, nb::arg("stream") = none,
           "Stored keys -> codes. slots [n] int32 lists slots (a negative one is inert); without it count "
           "slots from\n"
           "first_slot on, all by default. codes [>= code_bytes] uint8, written; key_thresholds\n"
           "[kv_heads, buckets - 1] float32, ascending.")
      .def(
          "export_codes",
          [](const Kernels& self, const ArrayArgument& codes, const ArrayArgument& bytes,
             std::int64_t first_slot, const nb::object& stream) {
            self.convert(adamas_codes_export, codes, bytes, first_slot, stream);
          },
          nb::arg("codes"), nb::arg("bytes"), nb::kw_only(), nb::arg("first_slot") = 0,
          nb::arg("stream") = none,
          "Codes -> canonical bytes [n, kv_heads, head_dim] uint8, written, of n slots from first_slot on.")
      .def(
          "import_codes",
          [](const Kernels& self, const ArrayArgument& codes, const ArrayArgument& bytes,
             std::int64_t first_slot, const nb::object& stream) {
            self.convert(adamas_codes_import, codes, bytes, first_slot, stream);
          },
          nb::arg("codes"), nb::arg("bytes"), nb::kw_only(), nb::arg("first_slot") = 0,
          nb::arg("stream") = none, "Canonical bytes [n, kv_heads, head_dim] uint8 -> codes, written.")
      .def("refresh", &Kernels::refresh, nb::arg("stream") = none,
           "With compile='background': the complete Kernels in place of dense ones, or None while they are "
           "being\n"
           "compiled. Encode the whole cache and make new plans before decoding with them.");

  const auto bind_check = [&](const char* name, Kernels::CheckOperation operation, const char* help) {
    kernels.def(
        name,
        [operation](const Kernels& self, const CacheView& cache, const ArrayArgument& codes,
                    const ArrayArgument& key_thresholds, const std::optional<ArrayArgument>& slots,
                    std::int64_t first_slot, std::optional<std::int64_t> count,
                    const std::optional<ArrayArgument>& stale, const Counters* counters,
                    const nb::object& stream) {
          self.check_codes(operation, cache, codes, key_thresholds, slots, first_slot, count, stale, counters,
                           stream);
        },
        nb::arg("cache"), nb::arg("codes"), nb::arg("key_thresholds"), nb::kw_only(), nb::arg("slots") = none,
        nb::arg("first_slot") = 0, nb::arg("count") = none, nb::arg("stale") = none,
        nb::arg("counters") = none, nb::arg("stream") = none, help);
  };
  bind_check(
      "check", adamas_check,
      "Makes the codes of slots again from K and compares: stale [n, kv_heads] uint8, written, is 1 where "
      "they\n"
      "differ; counters learn tokens_checked and tokens_stale. One of the two must be given. Slots as "
      "encode\n"
      "takes them, each at most once. Changes no codes.");
  bind_check("rebuild", adamas_rebuild, "As check, and writes the codes that differ.");
}

}  // namespace adamas_python
