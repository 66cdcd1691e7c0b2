// Context: one device, one kernel cache.
#pragma once

#include <string>

#include "kernels.hpp"

namespace adamas_python {

class Context {
 public:
  Context(const std::string& device, const std::optional<std::string>& cache_dir, int threads,
          const std::optional<std::string>& packs, const std::string& compile);

  adamas_context_info info() const;
  nb::dict cache_counters() const;
  Kernels prepare(const std::string& spec, int max_batch, int kv_heads, std::int64_t max_tokens,
                  std::int64_t max_slots, const std::string& tuning) const;
  Counters counters(const std::optional<ArrayArgument>& memory) const {
    return Counters(handle_, device_, memory);
  }
  void calibrate(const std::string& spec, const ArrayArgument& keys,
                 const std::optional<ArrayArgument>& queries, const ArrayArgument& key_thresholds,
                 const std::optional<ArrayArgument>& query_thresholds, const std::string& key_type,
                 const std::string& query_type) const;
  void synchronize(const nb::object& stream) const;

 private:
  ContextHandle handle_;
  DeviceId device_;
};

void bind_context(nb::module_& module);

}  // namespace adamas_python
