// Handles of the C interface: a magic number that tells type and liveness, and a shared reference to the real
// thing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

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

/// Where the handles of one type live. Their memory is never given back, so that a destroyed handle can be
/// read and told from a live one; it serves a new handle only after many others have been destroyed.
template <class Handle>
class HandleStore {
 public:
  static Handle* put(Handle handle) {
    HandleStore& store = instance();
    const std::lock_guard lock(store.mutex_);
    Handle* place = nullptr;
    if (store.destroyed_.size() > kKept) {
      place = store.destroyed_.front();
      store.destroyed_.pop_front();
    } else {
      place = &store.handles_.emplace_back();
    }
    *place = std::move(handle);
    return place;
  }

  /// @return  what the handle held, for the caller to let go of
  static Handle take(Handle* handle) noexcept {
    Handle content = std::move(*handle);
    *handle = Handle{};
    handle->magic = Magic::destroyed;
    HandleStore& store = instance();
    const std::lock_guard lock(store.mutex_);
    try {
      store.destroyed_.push_back(handle);
    } catch (const std::bad_alloc&) {
      // Without memory to remember it the place serves no other handle; it still says that it was destroyed.
    }
    return content;
  }

 private:
  static constexpr std::size_t kKept = 1024;

  static HandleStore& instance() {
    static auto* const store = new HandleStore;  // outlives handles that static objects of the host destroy
    return *store;
  }

  std::mutex mutex_;
  std::deque<Handle> handles_;  // never shrinks: addresses stay
  std::deque<Handle*> destroyed_;
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
