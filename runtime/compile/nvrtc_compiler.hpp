// NVRTC as a Compiler: CUDA source to cubin, in this process, with or without a GPU. And what ptxas says of
// the kernels: registers, spills, shared memory.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/compile/compiler.hpp"
#include "runtime/compile/nvrtc_library.hpp"

namespace adamas::runtime {

/// What one entry point of a binary occupies.
struct KernelResources {
  std::string entry;     ///< "adamas_scan"
  int registers = 0;     ///< a thread
  int shared_bytes = 0;  ///< static shared memory a block
  int stack_bytes = 0;
  int spill_store_bytes = 0, spill_load_bytes = 0;  ///< of the entry and of the functions it calls
};

struct PtxasReport {
  std::vector<KernelResources> kernels;
  std::string log;  ///< as ptxas wrote it
};

/// @param log  what ptxas writes under --verbose
PtxasReport parse_ptxas_log(std::string log);

class NvrtcCompiler final : public Compiler {
 public:
  /// @param library  null: this process's choice (nvrtc_choice()), made when first needed
  explicit NvrtcCompiler(std::shared_ptr<const NvrtcLibrary> library = nullptr);

  std::string name() const override { return "nvrtc"; }
  std::string unavailable() const override;

  /// NVIDIA's build number, "CL-36424714". nvrtcVersion tells only 13.0, so it is read from an empty compile,
  /// once.
  std::string build_id() override;
  /// "nvrtc 13.0.88 CL-36424714"
  std::string identity();

  /// Besides these only --gpu-architecture is given: no include paths, no machine's paths.
  std::vector<std::string> implied_options() const override { return {"--std=c++20"}; }

  /// @throws CompileError    the source was refused
  /// @throws codegen::Error  ADAMAS_UNAVAILABLE: no NVRTC; ADAMAS_UNSUPPORTED: it does not know the target;
  ///                         ADAMAS_COMPILE_FAILED: it failed for another reason
  CompileResult compile(const CompileRequest& request) override;

  /// Compiles once more, verbosely: that changes the binary, which is therefore dropped.
  PtxasReport ptxas_report(const CompileRequest& request);

  /// @throws codegen::Error  ADAMAS_UNAVAILABLE
  const NvrtcLibrary& library() const;

 private:
  CompileResult compile_with(const CompileRequest& request, std::vector<std::string> more_options);
  void read_banner();

  std::shared_ptr<const NvrtcLibrary> library_;
  std::once_flag banner_read_;
  std::string release_, build_;  // "13.0.88", "CL-36424714"
};

/// The process's NVRTC compiler. Cheap: the library is looked for when something is compiled.
std::shared_ptr<NvrtcCompiler> nvrtc_compiler();

}  // namespace adamas::runtime
