// Plan: a kernel plus the batch and the dense_below policy of a call. Cheap to make; owns no device memory,
// only the layout of the workspace.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "runtime/dispatch/kernel.hpp"

namespace adamas::runtime {

/// Byte offsets into a workspace; every part starts at a multiple of 256.
struct WorkspaceLayout {
  std::uint64_t prepared = 0, order_keys = 0, positions = 0, counts = 0, partial = 0;
  std::uint64_t bytes = 0;
  std::int64_t score_stride = 0;  ///< order keys a selection
  int chunks = 0;                 ///< chunks that `partial` has room for
};

class Plan {
 public:
  /// @param tokens  that rows are expected to hold, 0 = the capacity: decides which Tuning is taken, nothing
  /// else
  /// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) for a batch or tokens beyond the kernel's capacity.
  Plan(std::shared_ptr<const Kernel> kernel, int batch, std::int64_t dense_below, std::int64_t tokens = 0);

  const Kernel& kernel() const { return *kernel_; }
  std::size_t variant() const { return variant_; }  ///< of the kernel
  const codegen::Tuning& tuning() const { return kernel_->variants()[variant_].tuning; }
  const Module& module(codegen::Stage stage) const { return kernel_->module(stage, variant_); }
  int batch() const { return batch_; }
  int rows() const { return batch_ * kernel_->spec().query_rows; }
  std::int64_t dense_below() const { return dense_below_; }

  const WorkspaceLayout& workspace() const { return workspace_; }              ///< decode, select, attend
  const WorkspaceLayout& dense_workspace() const { return dense_workspace_; }  ///< dense

  codegen::Shape shape() const;

  /// The launch that does a whole decode, where the kernel set has one and the shape fits it.
  const std::optional<codegen::Grid>& decode_grid() const { return decode_grid_; }

  /// Chunks of the longest row that attends to all it sees, where that is more than a list holds; else 0.
  int short_chunks() const { return short_chunks_; }

 private:
  WorkspaceLayout layout(int chunks, bool selects) const;

  std::shared_ptr<const Kernel> kernel_;
  std::size_t variant_;
  int batch_;
  std::int64_t dense_below_;
  WorkspaceLayout workspace_, dense_workspace_;
  std::optional<codegen::Grid> decode_grid_;
  int short_chunks_ = 0;
};

}  // namespace adamas::runtime
