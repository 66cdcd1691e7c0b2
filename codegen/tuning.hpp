// Tuning: how a kernel set does its work, as a second `key=value ...` text. It changes speed and the last bits of
// attention, never codes, scores or selections. Every key has a default per target.
#pragma once

#include <string>
#include <string_view>

#include "codegen/spec.hpp"

namespace adamas::codegen {

struct Tuning {
  std::string schedule;  ///< of decode: "stages", or "cluster" (cuda): one launch where the shape fits
  int cluster = 0;       ///< cluster: blocks that answer a row and K/V head, 1, 2, 3, 4, 8; 0: by the plan's shape
  std::string scan;      ///< scan variant: "table" (cpu); cuda: "popc", or "bytes": the decode kernel multiplies bytes, not
                         ///< bits, where it has registers for them (up to 128 elements; manhattan: 4 buckets)
  int scan_tile = 0;     ///< tokens one scan work item scores, a multiple of 64
  int chunk = 0;         ///< selected tokens reduced together: fixes the order of the attention sums
  int dense_chunk = 0;   ///< the same for rows that attend to all tokens; cuda: at most, see cuda_facts.hpp
  int threads = 0;       ///< cuda: threads a block of the scan, select and attend kernels; cpu: 0
  int decode_threads = 0;  ///< cuda: threads a block of the decode kernel, 64 to 512; 0: by the plan's shape; cpu: 0

  /// Parses over the defaults of (spec, target). Target: "sm_90a", "x86-64-v3", ... (see target.hpp).
  /// @throws Error(ADAMAS_INVALID_SPEC) naming key, value and rule.
  static Tuning parse(std::string_view text, const Spec& spec, std::string_view target);

  /// Canonical text: every key, in the order above. parse(text(), ...) gives an equal Tuning.
  std::string text() const;

  bool operator==(const Tuning&) const = default;
};

}  // namespace adamas::codegen
