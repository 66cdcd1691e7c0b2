// Handles of the C interface: a magic number that tells type and liveness, and a shared reference to the real thing.
#pragma once

#include <cstdint>
#include <future>
#include <memory>

#include "runtime/dispatch/context.hpp"
#include "runtime/dispatch/kernel.hpp"
#include "runtime/dispatch/plan.hpp"

namespace adamas::runtime {

enum class Magic : std::uint64_t {
  context = 0x74786574'6e6f6341,
  kernel = 0x6c656e72'656b6441,
  plan = 0x6e616c70'5f6d6441,
  future = 0x65727574'75666441,
  destroyed = 0xdeaddead'deaddead,
};

}  // namespace adamas::runtime

struct adamas_context {
  adamas::runtime::Magic magic = adamas::runtime::Magic::context;
  std::shared_ptr<adamas::runtime::Context> context;
  std::string device_id, device_name, target;  // what get_info points to
};

struct adamas_kernel {
  adamas::runtime::Magic magic = adamas::runtime::Magic::kernel;
  std::shared_ptr<const adamas::runtime::Kernel> kernel;
  std::string spec, tuning, layout_id;
};

struct adamas_plan {
  adamas::runtime::Magic magic = adamas::runtime::Magic::plan;
  std::shared_ptr<const adamas::runtime::Plan> plan;
};

struct adamas_future {
  adamas::runtime::Magic magic = adamas::runtime::Magic::future;
  std::shared_ptr<adamas::runtime::Context> context;
  std::shared_future<std::shared_ptr<const adamas::runtime::Kernel>> result;
};
