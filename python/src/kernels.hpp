// Kernels: the loaded kernels of one Spec, and what acts on codes.
#pragma once

#include "plan.hpp"

namespace adamas_python {

class Kernels {
 public:
  Kernels(ContextHandle context, DeviceId device, adamas_kernel* kernel, const adamas_capacity& capacity);

  adamas_kernel_info info() const;
  const KernelFacts& facts() const { return *facts_; }
  Plan plan(int batch, std::int64_t dense_below, bool own_workspace) const {
    return Plan(context_, kernel_, facts_, code_bytes_, batch, dense_below, own_workspace);
  }
  CacheView cache(const CacheArrays& arrays) const { return CacheView(*facts_, arrays); }
  void encode(const CacheView& cache, const ArrayArgument& codes, const ArrayArgument& key_thresholds,
              const std::optional<ArrayArgument>& slots, std::int64_t first_slot,
              std::optional<std::int64_t> count, const Counters* counters, const nb::object& stream) const;
  using CheckOperation = adamas_status (*)(const adamas_kernel*, const adamas_check_args*, void*);
  void check_codes(CheckOperation operation, const CacheView& cache, const ArrayArgument& codes,
                   const ArrayArgument& key_thresholds, const std::optional<ArrayArgument>& slots,
                   std::int64_t first_slot, std::optional<std::int64_t> count,
                   const std::optional<ArrayArgument>& stale, const Counters* counters,
                   const nb::object& stream) const;
  using CodesOperation = adamas_status (*)(const adamas_kernel*, const adamas_codes_args*, void*);
  void convert(CodesOperation operation, const ArrayArgument& codes, const ArrayArgument& bytes,
               std::int64_t first_slot, const nb::object& stream) const;
  /// Null while the complete kernel is being compiled.
  std::optional<Kernels> refresh(const nb::object& stream) const;

 private:
  /// Arrays that a call has been given pointers to.
  struct KeysArrays {
    Array codes, thresholds, slots;
  };
  /// What encode, check and rebuild have in common.
  template <class Arguments>
  KeysArrays put_keys(Arguments& args, const CacheView& cache, const ArrayArgument& codes, bool writable,
                      const ArrayArgument& key_thresholds, const std::optional<ArrayArgument>& slots,
                      std::int64_t first_slot, std::optional<std::int64_t> count,
                      const Counters* counters) const;

  ContextHandle context_;
  KernelHandle kernel_;
  std::shared_ptr<const KernelFacts> facts_;
  std::uint64_t code_bytes_ = 0;
};

void bind_kernels(nb::module_& module);

}  // namespace adamas_python
