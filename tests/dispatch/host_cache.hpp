// A host engine's cache as tests make it: where tokens lie (pages anywhere, packed arrays, starts), and K and
// V in the layouts that hosts use. What no sequence owns is NaN.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <adamas/adamas.hpp>

#include "codegen/spec.hpp"
#include "tests/dispatch/scenario.hpp"

namespace adamas::tests {

/// Where every token of every sequence lies.
struct Placement {
  std::int64_t page_tokens = 0, pages = 0, max_tokens = 0, max_slots = 0, table_stride = 0;
  std::vector<std::int32_t> starts, table, indptr;  ///< indptr: used by csr alone
  std::vector<std::vector<std::int64_t>> slots;     ///< [sequence][position]
};

Placement place(const Scenario& scenario, const codegen::Spec& spec, oracle::Random& random);

/// K or V of all sequences in the host's layout. Elements are counted, bytes follow from the type.
struct HostCache {
  std::vector<std::byte> key, value;  ///< interleaved: both in `key`
  adamas_cache strides;
};

class CacheBuilder {
 public:
  CacheBuilder(const Scenario& scenario, const codegen::Spec& spec, const Placement& placement)
      : spec_(spec),
        slots_form_(spec.cache_form == codegen::CacheForm::slots),
        page_tokens_(slots_form_ ? placement.max_slots : placement.page_tokens),
        heads_(scenario.kv_heads),
        layout_(scenario.layout) {
    const std::int64_t tokens = page_tokens_;
    const bool together = layout_ == HostLayout::interleaved;
    const std::int64_t key_dim = together ? spec.head_dim + spec.value_dim : spec.head_dim;
    const std::int64_t value_dim = together ? key_dim : spec.value_dim;
    const auto strides = [&](std::int64_t dim, std::int64_t& page, std::int64_t& token, std::int64_t& head) {
      page = tokens * heads_ * dim;
      token = layout_ == HostLayout::token_major ? heads_ * dim : dim;
      head = layout_ == HostLayout::token_major ? dim : tokens * dim;
    };
    strides(key_dim, cache_.strides.key_page_stride, cache_.strides.key_token_stride,
            cache_.strides.key_head_stride);
    strides(value_dim, cache_.strides.value_page_stride, cache_.strides.value_token_stride,
            cache_.strides.value_head_stride);
    const auto width = static_cast<std::size_t>(element_bytes(spec.kv_type));
    const auto rows = static_cast<std::size_t>(placement.pages * placement.page_tokens * heads_);
    // What no sequence owns is NaN in every type: reading it would show.
    cache_.key.assign(rows * key_dim * width, std::byte{0xff});
    if (!together) cache_.value.assign(rows * value_dim * width, std::byte{0xff});
  }

  void put(std::int64_t slot, int head, const std::vector<std::byte>& key,
           const std::vector<std::byte>& value) {
    const std::int64_t page = slot / page_tokens_, token = slot % page_tokens_;
    const auto width = static_cast<std::int64_t>(element_bytes(spec_.kv_type));
    const auto& s = cache_.strides;
    const auto key_at =
        (page * s.key_page_stride + token * s.key_token_stride + head * s.key_head_stride) * width;
    std::copy(key.begin(), key.end(), cache_.key.begin() + key_at);
    if (layout_ == HostLayout::interleaved) {
      std::copy(value.begin(), value.end(), cache_.key.begin() + key_at + spec_.head_dim * width);
    } else {
      const auto value_at =
          (page * s.value_page_stride + token * s.value_token_stride + head * s.value_head_stride) * width;
      std::copy(value.begin(), value.end(), cache_.value.begin() + value_at);
    }
  }

  HostCache take() {
    // Of one big page: strides between pages are not used.
    if (slots_form_) cache_.strides.key_page_stride = cache_.strides.value_page_stride = -77;
    return std::move(cache_);
  }

 private:
  const codegen::Spec& spec_;
  const bool slots_form_;
  const std::int64_t page_tokens_;
  int heads_;
  HostLayout layout_;
  HostCache cache_{};
};

}  // namespace adamas::tests
