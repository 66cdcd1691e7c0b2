// A host's K and V as arrays: see cache_view.hpp.
#include "cache_view.hpp"

#include <algorithm>
#include <tuple>

namespace adamas_python {
namespace {

constexpr int kBlockElements = 32, kBlockBytes = 34;  // ggml's q8_0

/// Units of kv_type that a row of `dim` elements takes in an array, and elements of the array that a stride's
/// unit is.
struct RowUnits {
  std::int64_t elements;
  std::int64_t stride_unit;
  const char* what;
};
RowUnits row_units(const KernelFacts& facts, int dim) {
  if (facts.text("kv_type") == "q8_0")
    return {dim / kBlockElements * kBlockBytes, kBlockBytes, "bytes of blocks"};
  return {dim, 1, "elements"};
}

struct Strides {
  std::int64_t page = 0, token = 0, head = 0;
};

/// The shape that K (V) has in this cache form, and what its strides mean.
Array checked_rows(const char* name, const ArrayArgument& given, const KernelFacts& facts, int dim,
                   Strides& strides) {
  const RowUnits units = row_units(facts, dim);
  const std::string& form = facts.text("cache_form");
  Wanted wanted{facts.kind("kv_type"), {}};
  if (form == "slots" || facts.packed())
    wanted.shape = {{facts.slots(), "slots", true}};
  else if (form == "contiguous")  // a batch smaller than the capacity is no harm: plans and encode look
    wanted.shape = {{1, "sequences", true}, {facts.page_tokens(), "tokens", true}};
  else
    wanted.shape = {{facts.pages(), "pages", true}, {facts.page_tokens(), "tokens"}};
  wanted.shape.push_back({facts.capacity.kv_heads, "K/V heads"});
  wanted.shape.push_back({units.elements, units.what});
  const Array array = checked_array(name, given, facts.device, wanted);

  std::vector<std::int64_t> in_units = array.strides;
  for (std::size_t i = 0; i + 1 < in_units.size(); ++i) {
    if (array.shape[i] > 1 && in_units[i] % units.stride_unit != 0)
      refuse(name, "a stride of " + std::to_string(in_units[i]) + " bytes",
             "strides of whole blocks of 34 bytes");
    in_units[i] /= units.stride_unit;
  }
  const std::size_t last = in_units.size() - 1;
  strides = {.page = last == 3 ? in_units[0] : 0, .token = in_units[last - 2], .head = in_units[last - 1]};
  return array;
}

}  // namespace

CacheView::CacheView(const KernelFacts& facts, const CacheArrays& arrays) {
  kept_.reserve(8);  // references to what is kept stay valid
  if (facts.text("cache_form") == "pointers")
    take_addresses(facts, arrays);
  else
    take_rows(facts, arrays);
  take_tables(facts, arrays);
  take_scales(facts, arrays);
}

const Array& CacheView::keep(Array array) {
  kept_.push_back(std::move(array));
  return kept_.back();
}

void CacheView::take_rows(const KernelFacts& facts, const CacheArrays& arrays) {
  if (arrays.page_addresses) refuse("page_addresses", "an array", "none: it goes with cache_form=pointers");
  if (!arrays.keys) refuse("keys", "None", "an array");
  Strides strides;
  const Array& keys = keep(checked_rows("keys", *arrays.keys, facts, facts.head_dim(), strides));
  keys_ = keys.owner;
  cache_.key = keys.data;
  cache_.key_page_stride = strides.page;
  cache_.key_token_stride = strides.token;
  cache_.key_head_stride = strides.head;
  const bool rows_of_sequences = facts.text("cache_form") == "contiguous" && !facts.packed();
  batch_ = rows_of_sequences ? std::min<std::int64_t>(keys.shape[0], facts.capacity.max_batch) : 0;
  slots_ = rows_of_sequences ? batch_ * facts.page_tokens() : facts.slots();
  if (!arrays.values) return;

  const Array& values = keep(checked_rows("values", *arrays.values, facts, facts.value_dim(), strides));
  cache_.value = values.data;
  cache_.value_page_stride = strides.page;
  cache_.value_token_stride = strides.token;
  cache_.value_head_stride = strides.head;
  has_values_ = true;
  if (rows_of_sequences) batch_ = std::min(batch_, values.shape[0]);
}

void CacheView::take_addresses(const KernelFacts& facts, const CacheArrays& arrays) {
  if (!arrays.page_addresses) refuse("page_addresses", "None", "an array: the Spec has cache_form=pointers");
  if (arrays.keys || arrays.values)
    refuse(arrays.keys ? "keys" : "values", "an array", "None: page_addresses say where pages are");
  if (!arrays.key_strides || !arrays.value_strides)
    refuse(arrays.key_strides ? "value_strides" : "key_strides", "None",
           "(stride of a token, stride of a head) in elements, with cache_form=pointers");
  const Array& pages =
      keep(checked_array("page_addresses", arrays.page_addresses, facts.device,
                         {ElementKind::i64, {{facts.pages(), "pages", true}}, /*dense=*/true}));
  keys_ = pages.owner;
  cache_.page_addresses = pages.as<const void*>();
  cache_.key_offset = arrays.key_offset;
  cache_.value_offset = arrays.value_offset;
  std::tie(cache_.key_token_stride, cache_.key_head_stride) = *arrays.key_strides;
  std::tie(cache_.value_token_stride, cache_.value_head_stride) = *arrays.value_strides;
  slots_ = facts.slots();
  has_values_ = true;
}

void CacheView::take_tables(const KernelFacts& facts, const CacheArrays& arrays) {
  const std::string& form = facts.text("cache_form");
  const auto unwanted = [&](const char* name, const std::optional<ArrayArgument>& given) {
    if (given) refuse(name, "an array", "None with cache_form=" + form + " tables=" + facts.text("tables"));
  };
  if (form != "csr") unwanted("indptr", arrays.indptr);
  if (facts.text("tables") != "split") unwanted("value_table", arrays.value_table);
  if (form == "contiguous") {
    unwanted("table", arrays.table);
    return;
  }
  if (!arrays.table) return;  // encode needs none; a call that does will say so

  const std::int64_t page = facts.page_tokens();
  const std::int64_t entries = (facts.capacity.max_tokens + page - 1) / page;
  std::vector<Extent> shape{{entries, page == 1 ? "slots" : "pages", true}};
  if (form != "csr") shape.insert(shape.begin(), {1, "sequences", true});
  if (form == "csr") shape[0].value = 1;
  const Array& table =
      keep(checked_array("table", arrays.table, facts.device, {ElementKind::i32, shape, /*dense=*/true}));
  cache_.table = table.as<const int32_t>();
  cache_.table_stride = table.shape.back();
  batch_ = table.shape.front();
  if (form == "csr") {
    if (!arrays.indptr) refuse("indptr", "None", "an array: the Spec has cache_form=csr");
    const Array& indptr =
        keep(checked_array("indptr", arrays.indptr, facts.device,
                           {ElementKind::i32, {{2, "ends of sequences", true}}, /*dense=*/true}));
    cache_.indptr = indptr.as<const int32_t>();
    batch_ = indptr.shape[0] - 1;
  }
  if (facts.text("tables") == "split") {
    if (!arrays.value_table) refuse("value_table", "None", "an array: the Spec has tables=split");
    std::vector<Extent> same;
    for (const std::int64_t extent : kept_[form == "csr" ? kept_.size() - 2 : kept_.size() - 1].shape)
      same.push_back({extent, "as table"});
    cache_.value_table = keep(checked_array("value_table", arrays.value_table, facts.device,
                                            {ElementKind::i32, same, /*dense=*/true}))
                             .as<const int32_t>();
  }
}

void CacheView::take_scales(const KernelFacts& facts, const CacheArrays& arrays) {
  const bool scaled = facts.text("kv_type") == "f8e4m3fn";
  if (!scaled) {
    if (arrays.key_scale) refuse("key_scale", "an array", "None: only kv_type=f8e4m3fn has scales");
    if (arrays.value_scale) refuse("value_scale", "an array", "None: only kv_type=f8e4m3fn has scales");
    return;
  }
  if (!arrays.key_scale)
    refuse("key_scale", "None", "an array of 1 or kv_heads floats, with kv_type=f8e4m3fn");
  const Array& key =
      keep(checked_array("key_scale", arrays.key_scale, facts.device,
                         {ElementKind::f32, {{1, "(the tensor) or kv_heads", true}}, /*dense=*/true}));
  const std::int64_t count = key.shape[0];
  if (count != 1 && count != facts.capacity.kv_heads)
    refuse("key_scale", "shape (" + std::to_string(count) + ",)",
           "shape (1,) or (" + std::to_string(facts.capacity.kv_heads) + ",)");
  cache_.key_scale = key.as<const float>();
  cache_.scale_stride = count > 1 ? 1 : 0;
  if (!arrays.value_scale) {
    if (has_values_) refuse("value_scale", "None", "an array as key_scale");
    return;
  }
  cache_.value_scale = keep(checked_array("value_scale", arrays.value_scale, facts.device,
                                          {ElementKind::f32, {{count, "as key_scale"}}, /*dense=*/true}))
                           .as<const float>();
}

}  // namespace adamas_python
