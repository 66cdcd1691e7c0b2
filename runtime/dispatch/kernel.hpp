// Kernel: the compiled and loaded stages of one Spec for given capacities. Immutable; shared by plans and
// threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "codegen/facts.hpp"
#include "codegen/generator.hpp"
#include "runtime/dispatch/context.hpp"
#include "runtime/dispatch/kernel_tunings.hpp"

namespace adamas::runtime {

/// What launches may grow to, as the host stated it (adamas_capacity).
struct Capacity {
  int max_batch = 0;
  int kv_heads = 0;
  std::int64_t max_tokens = 0;
  std::int64_t max_slots = 0;
};

/// How capacities become slots and pages. A page of `slots` is one token; a contiguous cache is pages of one
/// whole sequence row, or, packed, one page.
struct Geometry {
  std::int64_t page_tokens = 0;
  std::int64_t pages = 0;
  std::int64_t sequence_slots = 0;  ///< contiguous: slots between sequences' rows, 0 = packed
  std::int64_t slots = 0;           ///< page_tokens * pages
  bool packed = false;
};

/// What preparing cost, and what came out.
struct PrepareReport {
  std::string target;
  int units = 0;
  int compiles = 0;
  double compile_ms = 0;
  double load_ms = 0;
};

/// The stages of a kernel with one Tuning.
struct KernelVariant {
  codegen::Tuning tuning;
  std::string text;  ///< canonical, of the Tuning
  /// By unit; null if it has none. Only the first variant has what plans do not launch.
  std::array<std::shared_ptr<const Module>, codegen::kUnits.size()> modules;
};

class Kernel {
 public:
  /// The only call that may compile, load or allocate. @throws codegen::Error.
  static std::shared_ptr<const Kernel> prepare(std::shared_ptr<Context> context, const std::string& spec,
                                               const std::string& tuning, const Capacity& capacity);

  /// The complete kernel in place of a dense one, whose plans and launches stay valid. Null while its units are
  /// still being compiled; the same kernel if it is complete. Loads, never compiles.
  /// @param stream  refused (ADAMAS_INVALID_ARGUMENT) while it is captured
  /// @throws codegen::Error  why the background compile failed
  static std::shared_ptr<const Kernel> refresh(const std::shared_ptr<const Kernel>& kernel, Stream stream);

  /// What prepare checks before any compile, for callers that answer at once and prepare later.
  static void check(const Context& context, const std::string& spec, const std::string& tuning,
                    const Capacity& capacity);

  Context& context() const { return *context_; }
  const Device& device() const { return context_->device(); }
  const codegen::Spec& spec() const { return spec_; }
  /// What the host asked for; else what the context's tuning file has for the capacities, or the default.
  const codegen::Tuning& tuning() const { return variants_.front().tuning; }
  const std::vector<KernelVariant>& variants() const { return variants_; }
  /// The variant that is best for a shape: that of the nearest one in the tuning file.
  std::size_t variant_for(int batch, std::int64_t tokens) const;
  const codegen::Facts& facts() const { return facts_; }
  const Capacity& capacity() const { return capacity_; }
  const Geometry& geometry() const { return geometry_; }
  const codegen::CodeStrides& code_strides() const { return code_strides_; }
  const PrepareReport& report() const { return report_; }

  int query_heads() const { return capacity_.kv_heads * spec_.group; }
  int selections() const { return capacity_.kv_heads * facts_.selections_per_kv_head; }
  std::uint64_t code_bytes() const;

  const Module& module(codegen::Stage stage, std::size_t variant = 0) const {
    return *variants_[variant].modules[static_cast<std::size_t>(codegen::unit_of(stage))];
  }

  /// What a dense kernel waits for; null when the kernel is complete.
  const BackgroundJob* waits_for() const { return job_.get(); }
  /// @throws codegen::Error(ADAMAS_UNAVAILABLE) when the stage is among what is still being compiled
  void require(codegen::Stage stage) const;

 private:
  Kernel(std::shared_ptr<Context> context, const std::string& spec, const std::string& tuning,
         const Capacity& capacity, CompilePolicy policy);
  void load_units(CompilePolicy policy);

  std::shared_ptr<Context> context_;
  codegen::Spec spec_;
  std::string tuning_text_;  ///< as the host gave it
  codegen::Facts facts_;
  Capacity capacity_;
  Geometry geometry_;
  codegen::CodeStrides code_strides_;
  PrepareReport report_;
  std::vector<KernelVariant> variants_;
  std::vector<TunedVariant> tuned_;  ///< shapes of the tuning file; empty: the first variant for all
  std::shared_ptr<const BackgroundJob> job_;
};

/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) naming the capacity at fault.
Geometry geometry_of(const codegen::Spec& spec, const Capacity& capacity);

}  // namespace adamas::runtime
