// Checks of what a call hands over: null and misaligned pointers, strides, sizes. Everything that can be
// known on the host is refused here, before anything is enqueued; what only the device knows is clamped
// there.
#pragma once

#include <adamas/adamas.h>

#include "runtime/dispatch/plan.hpp"

namespace adamas::runtime {

/// Which parts of adamas_call an operation reads and writes.
struct CallNeeds {
  const char* operation;
  bool query = true, cache = false, codes = false, selection = false, out = false, workspace = true;
  bool append = false;
};

/// @throws codegen::Error(ADAMAS_INVALID_ARGUMENT) naming field, value and rule.
void check_call(const Plan& plan, const WorkspaceLayout& workspace, const adamas_call& call,
                const CallNeeds& needs);
void check_encode(const Kernel& kernel, const adamas_encode_args& args);
/// @param mend  rebuild, which need not report
void check_check(const Kernel& kernel, const adamas_check_args& args, bool mend);
void check_codes(const Kernel& kernel, const adamas_codes_args& args);

/// Strides with the documented default (0, 0 = dense) filled in.
struct RowStrides {
  std::int64_t row, head;
};
RowStrides query_strides(const Kernel& kernel, const adamas_call& call);
RowStrides out_strides(const Kernel& kernel, const adamas_call& call);

}  // namespace adamas::runtime
