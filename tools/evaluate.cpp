// Evaluation of a dump: see evaluate.hpp.
#include "tools/evaluate.hpp"

#include <cmath>
#include <optional>

#include "codegen/format.hpp"
#include "runtime/device/device.hpp"
#include "tools/layer_run.hpp"
#include "tools/traffic.hpp"

namespace adamas::tools {
namespace {

/// Output in float32, so that the error measured is the selection's and not the output format's.
codegen::Spec spec_for(const DumpLayer& layer, const std::string& estimator, int budget,
                       const std::string& extra) {
  return codegen::Spec::parse(
      fmt::format("{} out_type=f32 estimator={} budget={} {}", layer.spec_text(), estimator, budget, extra));
}

void describe(EvalRow& row, const LayerRun& run, const DumpLayer& layer, bool exact) {
  const auto info = run.kernel_info();
  row.compiles = info.compiles;
  row.compile_ms = info.compile_ms;
  row.load_ms = info.load_ms;
  row.bytes =
      exact ? 0
            : sparse_bytes(run.spec(), static_cast<int>(info.code_row_bytes), layer.kv_heads, layer.tokens);
  row.dense_bytes = dense_bytes(run.spec(), layer.kv_heads, layer.tokens);
}

}  // namespace

void evaluate(const EvalOptions& options, const std::function<void(const EvalHeader&)>& begin,
              const std::function<void(const EvalRow&)>& emit,
              const std::function<void(const std::string&)>& progress) {
  progress("reading " + options.file);
  const Context context(options.device.c_str());
  const auto stream = runtime::open_device(context.info().device, 1)->make_stream();
  EvalHeader header{context.info().device, context.info().device_name, load_dump(options.file)};
  std::optional<SafetensorsFile> thresholds_file;
  if (!options.thresholds.empty()) thresholds_file = SafetensorsFile::open(options.thresholds);
  begin(header);

  for (const DumpLayer& layer : header.layers) {
    progress(fmt::format("layer {}: exact attention in double, for comparison", layer.index));
    const ExactAttention exact(layer, 1.0 / std::sqrt(layer.head_dim));
    double dense_us = 0;
    for (const std::string& estimator : options.estimators) {
      for (const int budget : options.budgets) {
        progress(fmt::format("layer {}: {}, budget {}", layer.index, estimator, budget));
        const bool is_exact = estimator == "exact";
        const auto spec = spec_for(layer, is_exact ? "dot" : estimator, budget, options.spec);
        LayerRun run(
            context, *stream, layer, spec,
            thresholds_file ? load_thresholds(*thresholds_file, layer, spec) : calibrate_layer(layer, spec));
        if (dense_us == 0) dense_us = run.time_dense().median;
        const LayerResult result = is_exact ? run.attend_to(exact.best(spec)) : run.run();
        EvalRow row;
        row.layer = layer.index;
        row.budget = budget;
        row.estimator = estimator;
        row.device = header.device;
        row.accuracy = exact.compare(spec, result);
        row.us = result.decode.median;
        row.dense_us = dense_us;
        describe(row, run, layer, is_exact);
        emit(row);
      }
    }
  }
}

}  // namespace adamas::tools
