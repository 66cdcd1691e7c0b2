// One dumped layer on a device: K, V and queries uploaded, encoded once per Spec, then selected, attended and
// timed. The dump's queries become sequences of different length that share all pages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <adamas/adamas.hpp>

#include "tools/dump.hpp"
#include "tools/timing.hpp"

namespace adamas::tools {

/// Token sets of all queries: positions [queries, selections, budget] ascending then -1, counts [queries,
/// selections].
struct Selection {
  int budget = 0;
  std::vector<std::int32_t> positions, counts;
};

/// What one estimator and budget gave.
struct LayerResult {
  Selection selection;
  std::vector<float> out;  ///< [queries, query heads, value_dim]
  Timing decode;           ///< one query row over all heads; zeros when it was not timed
};

class LayerRun {
 public:
  /// @param stream  of the context's device: what is timed is recorded on it
  /// @param spec    complete Spec; its head_dim, value_dim, group, kv_type and q_type are the layer's
  LayerRun(const Context& context, const runtime::OwnStream& stream, const DumpLayer& layer,
           const codegen::Spec& spec, const LayerThresholds& thresholds);

  LayerResult run();                              ///< select, then decode; timed
  LayerResult attend_to(const Selection& given);  ///< the given tokens; not timed
  Timing time_dense();

  const codegen::Spec& spec() const { return spec_; }
  adamas_kernel_info kernel_info() const { return kernel_.info(); }

 private:
  Call call(int first_query) const;
  Timing time(void (Plan::*operation)(const Call&, void*) const) const;

  const Context& context_;
  const runtime::OwnStream& stream_;
  const DumpLayer& layer_;
  codegen::Spec spec_;
  Kernel kernel_;
  Plan batch_plan_, row_plan_;  // all queries at once; one query at a time
  Buffer<std::byte> workspace_, key_, value_, query_, codes_;
  Buffer<float> key_thresholds_, query_thresholds_, out_;
  Buffer<std::int32_t> lengths_, starts_, table_, positions_, counts_;
  adamas_cache cache_{};
};

}  // namespace adamas::tools
