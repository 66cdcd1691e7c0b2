// Tunes one shape on a device: compiles the candidates, has a worker time them, and searches.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tools/tune/record.hpp"
#include "tools/tune/worker_process.hpp"

namespace adamas::tools {

struct TuneTask {
  std::string device, program;  ///< program: the path of `adamas`, which is started as worker
  codegen::Spec spec;
  std::string target;
  int processors = 0;
  double memory_bytes = 0;
  int jobs = 1;             ///< compiles at once
  bool exhaustive = false;  ///< no candidate is dropped
};

/// Tells what is going on; calls come from the thread that tunes.
struct TuneObserver {
  virtual ~TuneObserver() = default;
  virtual void space(const runtime::TunedShape&, const codegen::TuningSpace&) {}
  virtual void compiled(std::size_t /*done*/, std::size_t /*all*/) {}
  /// A candidate's trial has changed. `dense`: of the second search, for dense_chunk.
  virtual void trial(const ShapeRecord& /*so_far*/, std::size_t /*candidate*/, bool /*dense*/) {}
};

/// When to take what has been found; asked between measurements.
struct TuneStops {
  std::function<bool()> decode;  ///< the search for the fastest decode
  std::function<bool()> all;     ///< the shorter one for attending to all, which comes after it
};

/// @param known  first results of an earlier run, by Tuning
/// @throws codegen::Error if not even the default Tuning runs
ShapeRecord tune_shape(const TuneTask& task, const runtime::TunedShape& shape,
                       const std::map<std::string, Trial>& known, const TuneStops& stops,
                       TuneObserver& observer);

/// Opens the shape on a worker, and returns what it says of it. @throws codegen::Error
nlohmann::json open_shape(WorkerProcess& worker, const TuneTask& task, const runtime::TunedShape& shape,
                          const std::string& tuning, bool dense);

/// Times Tunings on a worker, `rounds` passes each in turn. @throws codegen::Error naming the one that fails
std::vector<std::vector<double>> time_tunings(const TuneTask& task, const runtime::TunedShape& shape,
                                              const std::vector<std::string>& tunings, bool dense,
                                              int rounds);

}  // namespace adamas::tools
