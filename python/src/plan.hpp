// Plan: select, attend, decode and dense over arrays.
#pragma once

#include <memory>
#include <optional>

#include "cache_view.hpp"
#include "counters.hpp"
#include "handles.hpp"

namespace adamas_python {

/// What the four calls take besides their own arrays.
struct CallOptions {
  std::optional<ArrayArgument> starts{}, row_budgets{}, query_thresholds{}, sink_logits{}, lse{}, scores{},
      query_codes{}, workspace{}, append_slots{}, key_thresholds{};
  std::optional<double> scale{};
  double soft_cap = 0;
  int window = 0;
  bool slots = false;
  const Counters* counters = nullptr;
  nb::object stream = nb::none();
};

/// The arrays of one call; null where it takes none.
struct CallArrays {
  const ArrayArgument* query = nullptr;
  const CacheView* cache = nullptr;
  const ArrayArgument* codes = nullptr;
  const ArrayArgument* lengths = nullptr;
  std::optional<ArrayArgument> positions, counts, out;
};

class Plan {
 public:
  Plan(ContextHandle context, KernelHandle kernel, std::shared_ptr<const KernelFacts> facts,
       std::uint64_t code_bytes, int batch, std::int64_t dense_below, bool own_workspace);

  using Operation = adamas_status (*)(const adamas_plan*, const adamas_call*, void*);
  void call(Operation operation, const CallArrays& arrays, const CallOptions& options) const;

  int batch() const { return batch_; }
  adamas_plan_info info() const;

 private:
  void take_rows(adamas_call& call, const CallArrays& arrays, bool writes_codes,
                 std::vector<Array>& kept) const;
  void take_selection(adamas_call& call, const CallArrays& arrays, const CallOptions& options,
                      std::vector<Array>& kept) const;
  void take_options(adamas_call& call, const CallOptions& options, std::vector<Array>& kept) const;

  ContextHandle context_;
  KernelHandle kernel_;
  std::shared_ptr<const KernelFacts> facts_;
  std::shared_ptr<adamas_plan> plan_;
  std::uint64_t code_bytes_;
  int batch_, rows_ = 0, selections_ = 0;
  std::uint64_t workspace_bytes_ = 0;
  std::shared_ptr<const DeviceMemory> workspace_;
};

/// The dense array of codes that a call reads or writes.
Array checked_codes(const ArrayArgument& codes, const KernelFacts& facts, std::uint64_t code_bytes,
                    bool writable);

void bind_plan(nb::module_& module);

}  // namespace adamas_python
