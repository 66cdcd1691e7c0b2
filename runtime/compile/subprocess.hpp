// Runs a program to its end: text in on its standard input, two streams out, with a time limit.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace adamas::runtime {

struct SubprocessResult {
  std::string output;       ///< what it wrote to standard output
  std::string diagnostics;  ///< what it wrote to standard error
  bool timed_out = false;   ///< it was killed at the time limit; the streams hold what came before
  /// Exit status, or 128 + the signal that ended it. Nothing when the host process reaped the child first, so
  /// no decision may rest on it alone.
  std::optional<int> exit_status;
};

/// The child gets default signal handlers, an empty signal mask, no descriptor of the host but its three
/// streams, and the host's environment without LD_PRELOAD (what a host preloads is meant for the host). Safe
/// to call from several threads, with SIGPIPE and SIGCHLD in any state.
/// @param argv   the program's path, then its arguments
/// @param input  the child may end without reading all of it
/// @throws codegen::Error  ADAMAS_UNAVAILABLE: the program could not be started
SubprocessResult run_subprocess(const std::vector<std::string>& argv, std::string_view input,
                                std::chrono::milliseconds time_limit);

}  // namespace adamas::runtime
