// Argument checks: see arguments.hpp.
#include "runtime/dispatch/arguments.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

using codegen::element_bytes;
using codegen::Error;

[[noreturn]] void refuse(const std::string& field, const std::string& value, const std::string& rule,
                         const std::string& hint = {}) {
  throw Error(ADAMAS_INVALID_ARGUMENT, field, value, rule, hint);
}

/// A tensor needs the device's alignment; an index array only its element's.
void check_pointer(const std::string& field, const void* pointer, std::size_t alignment) {
  if (pointer == nullptr) refuse(field, "null", "must point to device memory");
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (address % alignment != 0) {
    refuse(field, fmt::format("{:#x}", address), fmt::format("must be aligned to {} bytes", alignment));
  }
}

void check_optional(const std::string& field, const void* pointer, std::size_t alignment) {
  if (pointer != nullptr) check_pointer(field, pointer, alignment);
}

class Checker {
 public:
  explicit Checker(const Kernel& kernel) : kernel_(kernel) {}

  /// The device's, or the element's: of a block, that of its scale.
  std::size_t tensor_alignment(codegen::ElementType type) const {
    const int element = type == codegen::ElementType::q8_0 ? 2 : element_bytes(type);
    return std::max<std::size_t>(kernel_.device().alignment(), static_cast<std::size_t>(element));
  }

  void tensor(const std::string& field, const void* pointer, codegen::ElementType type) const {
    check_pointer(field, pointer, tensor_alignment(type));
  }

  /// A stride that is used (extent > 1) must step over a whole row and keep the device's alignment.
  void stride(const std::string& field, std::int64_t value, std::int64_t extent, int dim,
              codegen::ElementType type) const {
    if (extent <= 1) return;
    const codegen::StorageUnit unit = codegen::storage_unit(type);
    if (value < dim / unit.elements) {
      const std::string_view what = unit.elements > 1 ? "blocks" : "elements";
      refuse(field, fmt::to_string(value),
             fmt::format("must be at least the row's {} {}", dim / unit.elements, what),
             fmt::format("strides count {}", what));
    }
    const auto bytes = static_cast<std::uint64_t>(value) * static_cast<std::uint64_t>(unit.bytes);
    if (bytes % kernel_.device().alignment() != 0) {
      refuse(field, fmt::to_string(value),
             fmt::format("must be a multiple of {} bytes on this device", kernel_.device().alignment()));
    }
  }

  /// K or V of the cache: `base` and the page stride, or the offset in pages that have addresses.
  void cache_rows(const std::string& field, const void* base, std::int64_t offset, int dim, std::int64_t page,
                  std::int64_t token, std::int64_t head) const {
    using codegen::CacheForm;
    const auto type = kernel_.spec().kv_type;
    const CacheForm form = kernel_.spec().cache_form;
    const Geometry& geometry = kernel_.geometry();
    if (form == CacheForm::pointers) {
      const auto alignment = static_cast<std::int64_t>(tensor_alignment(type));
      if (offset < 0 || offset % alignment != 0) {
        refuse("cache." + field + "_offset", fmt::to_string(offset),
               fmt::format("must be a multiple of {} bytes, and not negative", alignment));
      }
    } else {
      tensor("cache." + field, base, type);
    }
    const std::int64_t tokens = form == CacheForm::slots ? geometry.slots : geometry.page_tokens;
    if (form != CacheForm::slots && form != CacheForm::pointers) {
      stride("cache." + field + "_page_stride", page, geometry.pages, dim, type);
    }
    stride("cache." + field + "_token_stride", token, tokens, dim, type);
    stride("cache." + field + "_head_stride", head, kernel_.capacity().kv_heads, dim, type);
  }

  void keys(const adamas_cache& cache) const {
    if (kernel_.spec().cache_form == codegen::CacheForm::pointers) {
      check_pointer("cache.page_addresses", cache.page_addresses, alignof(const void*));
    }
    cache_rows("key", cache.key, cache.key_offset, kernel_.spec().head_dim, cache.key_page_stride,
               cache.key_token_stride, cache.key_head_stride);
    scale("key_scale", cache.key_scale, cache.scale_stride);
  }

  void values(const adamas_cache& cache) const {
    cache_rows("value", cache.value, cache.value_offset, kernel_.spec().value_dim, cache.value_page_stride,
               cache.value_token_stride, cache.value_head_stride);
    scale("value_scale", cache.value_scale, cache.scale_stride);
  }

  void scale(const std::string& field, const float* scales, std::int64_t stride) const {
    if (kernel_.spec().kv_type != codegen::ElementType::f8e4m3fn) return;
    check_pointer("cache." + field, scales, alignof(float));
    if (stride != 0 && stride != 1) {
      refuse("cache.scale_stride", fmt::to_string(stride),
             "must be 0, one scale for the tensor, or 1, one a K/V head");
    }
  }

  /// How positions become slots: needed by everything that reads the cache or the codes by position.
  void table(const adamas_call& call) const {
    const Geometry& geometry = kernel_.geometry();
    const codegen::CacheForm form = kernel_.spec().cache_form;
    if (form != codegen::CacheForm::contiguous) {
      check_pointer("cache.table", call.cache.table, alignof(std::int32_t));
      check_table_stride(call.cache.table_stride);
    }
    if (form == codegen::CacheForm::csr) {
      check_pointer("cache.indptr", call.cache.indptr, alignof(std::int32_t));
    }
    if (geometry.packed) {
      check_pointer("starts", call.starts, alignof(std::int32_t));
    } else {
      check_optional("starts", call.starts, alignof(std::int32_t));
    }
    check_pointer("lengths", call.lengths, alignof(std::int32_t));
  }

  /// V's own table, for what attends.
  void value_table(const adamas_cache& cache) const {
    if (kernel_.spec().tables == codegen::Tables::shared) return;
    check_pointer("cache.value_table", cache.value_table, alignof(std::int32_t));
  }

  void check_table_stride(std::int64_t stride) const {
    const std::int64_t page = kernel_.geometry().page_tokens, tokens = kernel_.capacity().max_tokens;
    const std::int64_t pages = (tokens + page - 1) / page;
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    if (kernel_.spec().cache_form == codegen::CacheForm::csr) {
      if (stride >= 1 && stride <= kMost) return;
      refuse("cache.table_stride", fmt::to_string(stride), fmt::format("must be 1..{}", kMost),
             "it is the number of entries in the whole table");
    }
    if (stride < pages) {
      refuse("cache.table_stride", fmt::to_string(stride),
             fmt::format("must hold the {} pages of max_tokens {}", pages, tokens));
    }
  }

  void rows(const std::string& field, const void* base, RowStrides strides, int row_count, int dim,
            codegen::ElementType type) const {
    tensor(field, base, type);
    stride(field + "_head_stride", strides.head, kernel_.query_heads(), dim, type);
    stride(field + "_row_stride", strides.row, row_count, dim, type);
  }

  void slot_range(std::int64_t first, std::int64_t count) const {
    const std::int64_t slots = kernel_.geometry().slots;
    if (first < 0 || first > slots) {
      refuse("first_slot", fmt::to_string(first), fmt::format("must be 0..{}", slots));
    }
    if (count > slots - first) {
      refuse("count", fmt::to_string(count), fmt::format("must end within the cache's {} slots", slots));
    }
  }

 private:
  const Kernel& kernel_;
};

/// Grids count in 31 bits, as slots do.
void check_count(std::int64_t count) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (count < 0 || count > kMost) {
    refuse("count", fmt::to_string(count), fmt::format("must be 0..{}", kMost));
  }
}

RowStrides or_dense(std::int64_t row, std::int64_t head, int heads, int dim) {
  if (row == 0 && head == 0) return {static_cast<std::int64_t>(heads) * dim, dim};
  return {row, head};
}

}  // namespace

RowStrides query_strides(const Kernel& kernel, const adamas_call& call) {
  return or_dense(call.query_row_stride, call.query_head_stride, kernel.query_heads(),
                  kernel.spec().head_dim);
}

RowStrides out_strides(const Kernel& kernel, const adamas_call& call) {
  return or_dense(call.out_row_stride, call.out_head_stride, kernel.query_heads(), kernel.spec().value_dim);
}

void check_call(const Plan& plan, const WorkspaceLayout& workspace, const adamas_call& call,
                const CallNeeds& needs) {
  const Kernel& kernel = plan.kernel();
  const codegen::Spec& spec = kernel.spec();
  const Checker check(kernel);

  check_pointer("workspace", call.workspace, 16);
  if (call.workspace_bytes < workspace.bytes) {
    refuse("workspace_bytes", fmt::to_string(call.workspace_bytes),
           fmt::format("{} of this plan needs at least {}", needs.operation, workspace.bytes),
           "ask adamas_plan_get_info");
  }
  check.rows("query", call.query, query_strides(kernel, call), plan.rows(), spec.head_dim, spec.q_type);
  check.table(call);
  check_optional("row_budgets", call.row_budgets, alignof(std::int32_t));
  check_optional("counters", call.counters, 16);
  if (needs.cache) {
    check.keys(call.cache);
    check.values(call.cache);
    check.value_table(call.cache);
    if (!(call.scale >= 0) || std::isinf(call.scale)) {
      refuse("scale", fmt::to_string(call.scale), "must be positive and finite, or 0 for 1/sqrt(head_dim)");
    }
    if (spec.soft_cap && (!(call.soft_cap > 0) || std::isinf(call.soft_cap))) {
      refuse("soft_cap", fmt::to_string(call.soft_cap),
             "must be positive and finite in a Spec with soft_cap=on");
    }
    if (spec.sink_logits) check_pointer("sink_logits", call.sink_logits, alignof(float));
  }
  if (spec.window && call.window < 1) {
    refuse("window", fmt::to_string(call.window), "must be at least 1 in a Spec with window=on");
  }
  if (needs.codes) {
    check_pointer("codes", call.codes, kernel.device().alignment());
    if (spec.estimator == codegen::Estimator::manhattan) {
      check_pointer("query_thresholds", call.query_thresholds, alignof(float));
    }
    check_optional("scores", call.scores, alignof(std::int32_t));
    check_optional("query_codes", call.query_codes, 1);
  }
  if (needs.append && call.append_slots != nullptr) {
    check_pointer("append_slots", call.append_slots, alignof(std::int32_t));
    check_pointer("key_thresholds", call.key_thresholds, alignof(float));
  }
  if (needs.selection) {
    check_pointer("positions", call.positions, alignof(std::int32_t));
    check_pointer("counts", call.counts, alignof(std::int32_t));
  } else {
    check_optional("positions", call.positions, alignof(std::int32_t));
    check_optional("counts", call.counts, alignof(std::int32_t));
  }
  if (needs.out) {
    const RowStrides strides = out_strides(kernel, call);
    check.rows("out", call.out, strides, plan.rows(), spec.value_dim, spec.out_type);
    // Two rows written over each other would be a race, so both orders of the two strides must nest.
    const std::int64_t heads = kernel.query_heads(), rows = plan.rows();
    const bool rows_outside = strides.row >= (heads - 1) * strides.head + spec.value_dim;
    const bool heads_outside = strides.head >= (rows - 1) * strides.row + spec.value_dim;
    if (heads > 1 && rows > 1 && !rows_outside && !heads_outside) {
      refuse("out_row_stride", fmt::to_string(strides.row),
             fmt::format("rows of {} heads, {} elements apart, must not overlap", heads, strides.head));
    }
    check_optional("lse", call.lse, alignof(float));
    if (!spec.lse && call.lse != nullptr) {
      refuse("lse", "a pointer", "needs a Spec with lse=on", "pass NULL or prepare with lse=on");
    }
  }
}

void check_encode(const Kernel& kernel, const adamas_encode_args& args) {
  const Checker check(kernel);
  check_count(args.count);
  check.keys(args.cache);
  check_pointer("codes", args.codes, kernel.device().alignment());
  check_pointer("key_thresholds", args.key_thresholds, alignof(float));
  check_optional("counters", args.counters, 16);
  if (args.slots != nullptr) {
    check_pointer("slots", args.slots, alignof(std::int32_t));
  } else {
    check.slot_range(args.first_slot, args.count);
  }
}

void check_check(const Kernel& kernel, const adamas_check_args& args, bool mend) {
  const adamas_encode_args encode{.cache = args.cache,
                                  .codes = args.codes,
                                  .slots = args.slots,
                                  .first_slot = args.first_slot,
                                  .count = args.count,
                                  .key_thresholds = args.key_thresholds,
                                  .counters = args.counters};
  check_encode(kernel, encode);
  if (!mend && args.stale == nullptr && args.counters == nullptr) {
    refuse("counters", "null", "must be given, or `stale`: a check says what it found in them");
  }
}

void check_codes(const Kernel& kernel, const adamas_codes_args& args) {
  check_count(args.count);
  check_pointer("codes", args.codes, kernel.device().alignment());
  check_pointer("bytes", args.bytes, 1);
  Checker(kernel).slot_range(args.first_slot, args.count);
}

}  // namespace adamas::runtime
