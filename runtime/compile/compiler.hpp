// A compiler as the runtime sees it: source text in, binary out. One object a backend (adamas-cc, NVRTC).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "codegen/error.hpp"

namespace adamas::runtime {

struct CompileRequest {
  std::string name;    ///< what diagnostics call the source: "decode.cc"; a file name without folders
  std::string source;  ///< the whole translation unit
  std::string target;  ///< "x86-64-v3", "sm_90a"; empty or "host": this machine (CPU)
  std::vector<std::string> options;  ///< in order, without paths; part of the cache key
  std::string spec_text;             ///< canonical Spec and Tuning, for error messages
};

struct CompileResult {
  std::vector<std::byte> binary;
  std::string log;       ///< warnings, possibly empty
  std::string compiler;  ///< name, version and build id: metadata of the cache entry, never part of its key
  double milliseconds = 0;
};

/// The compiler refused the source (code() is ADAMAS_COMPILE_FAILED). what() has all of it.
class CompileError : public codegen::Error {
 public:
  /// Writes the source to $ADAMAS_DUMP_DIR, else $XDG_CACHE_HOME/adamas/failed, else ~/.cache/adamas/failed
  /// (mode 0700), with Spec, options and log as comments at its end. A dump that fails is told in the
  /// message.
  /// @param options  all options in effect, not only the request's
  CompileError(const CompileRequest& request, const std::string& compiler, std::vector<std::string> options,
               std::string log);

  const std::string& log() const noexcept { return log_; }
  const std::string& spec() const noexcept { return spec_; }
  const std::vector<std::string>& options() const noexcept { return options_; }
  /// Path of the dumped source; empty if it could not be written.
  const std::string& dumped_source() const noexcept { return dump_.path; }

 private:
  struct Dump {
    std::string path;     // empty on failure
    std::string failure;  // why, on failure
  };
  CompileError(const CompileRequest& request, const std::string& compiler, std::vector<std::string> options,
               std::string log, Dump dump);
  static Dump dump_source(const CompileRequest& request, const std::string& compiler,
                          const std::vector<std::string>& options, const std::string& log);

  std::string log_, spec_;
  std::vector<std::string> options_;
  Dump dump_;
};

/// Thread-safe: several threads may compile at once.
class Compiler {
 public:
  virtual ~Compiler() = default;

  virtual std::string name() const = 0;

  /// Empty if it can be used; else what is missing and the fix, in one sentence. May start or load the
  /// compiler.
  virtual std::string unavailable() const = 0;

  /// Identity of the very compiler: adamas-cc's 16 hexadecimal digits, NVRTC's "CL-36424714". May start or
  /// load it.
  /// @throws codegen::Error  ADAMAS_UNAVAILABLE
  virtual std::string build_id() = 0;

  /// Options added to every request: the language standard, and from the environment (instrumented mode).
  /// They change the binary, so the cache key must hold them after the request's own. A request may repeat
  /// them.
  virtual std::vector<std::string> implied_options() const { return {}; }

  /// @throws CompileError    the source was refused
  /// @throws codegen::Error  ADAMAS_UNAVAILABLE: no compiler; ADAMAS_COMPILE_FAILED: it died or took too long
  virtual CompileResult compile(const CompileRequest& request) = 0;
};

}  // namespace adamas::runtime
