// A worker of `adamas tune`: a process of its own, because a candidate may crash, hang or leave a device
// unusable. It is asked for one thing at a time, a JSON object a line each way.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>

#include <nlohmann/json.hpp>

#include "runtime/file_descriptor.hpp"

namespace adamas::tools {

class WorkerProcess {
 public:
  /// Starts `program tune-worker`. @throws codegen::Error(ADAMAS_UNAVAILABLE)
  explicit WorkerProcess(const std::string& program);
  ~WorkerProcess();  ///< kills it
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  /// The answer: an object, with "error" if the worker says so, crashed or took longer than `limit`. After a
  /// crash or a time-out it is gone, and so is what it had opened.
  nlohmann::json ask(const nlohmann::json& request, std::chrono::milliseconds limit);
  bool alive() const { return pid_ > 0; }

 private:
  nlohmann::json end(const std::string& what);

  pid_t pid_ = 0;
  runtime::FileDescriptor channel_;
  std::string received_;  // beyond the last whole line
};

}  // namespace adamas::tools
