// The extension module adamas._native: classes over the C interface, each bound beside its code.
#include <adamas/adamas.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "context.hpp"

NB_MODULE(_native, module) {
  using namespace adamas_python;
  module.attr("VERSION") = std::to_string(ADAMAS_VERSION_MAJOR) + "." + std::to_string(ADAMAS_VERSION_MINOR) +
                           "." + std::to_string(ADAMAS_VERSION_PATCH);
  module.attr("COUNTERS_BYTES") = static_cast<int>(ADAMAS_COUNTERS_BYTES);
  bind_counters(module);
  bind_plan(module);
  bind_kernels(module);
  bind_context(module);
}
