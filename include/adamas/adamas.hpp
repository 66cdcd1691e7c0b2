// adamas.hpp - the C++ interface of adamas-jit: RAII, spans and exceptions over adamas.h, header-only, no
// logic.
//
//   adamas::Context ctx{"auto"};
//   adamas::Kernel kernel = ctx.prepare("head_dim=128 group=4 budget=128",
//                                       {.max_batch = 16, .kv_heads = 8, .max_tokens = 131072});
//   adamas::Plan plan = kernel.plan({.batch = 16, .dense_below = -1});
//   kernel.encode({.cache = cache, .codes = codes, .slots = new_slots, .count = 16, .key_thresholds = t},
//   stream); plan.decode({.workspace = w, .workspace_bytes = n, .query = q, ...}, stream);
//
// Argument structs are those of adamas.h, where every field is documented; leave out what you don't need,
// struct_size included. Every function throws adamas::Error when its C counterpart fails.
#pragma once

#include <adamas/adamas.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace adamas {

using Capacity = adamas_capacity;
using PlanOptions = adamas_plan_options;
using Cache = adamas_cache;
using EncodeArgs = adamas_encode_args;
using CodesArgs = adamas_codes_args;
using CheckArgs = adamas_check_args;
using Call = adamas_call;
using Counters = adamas_counters;
using ContextOptions = adamas_context_options;
using CacheCounters = adamas_cache_counters;

/// Version of the library that runs, which may be later than that of this header.
inline const char* version() noexcept { return adamas_version(); }

/// A failed call: what adamas_last_error said.
class Error : public std::runtime_error {
 public:
  explicit Error(const adamas_error_info& info)
      : std::runtime_error(info.message),
        status_(info.status),
        field_(info.field),
        value_(info.value),
        rule_(info.rule),
        hint_(info.hint) {}

  adamas_status status() const noexcept { return status_; }
  const std::string& field() const noexcept { return field_; }  ///< the input at fault
  const std::string& value() const noexcept { return value_; }
  const std::string& rule() const noexcept { return rule_; }
  const std::string& hint() const noexcept { return hint_; }  ///< the way out; may be empty

 private:
  adamas_status status_;
  std::string field_, value_, rule_, hint_;
};

namespace detail {

inline void check(adamas_status status) {
  if (status == ADAMAS_OK) return;
  adamas_error_info info;
  info.message = info.field = info.value = info.rule = info.hint = "";
  adamas_last_error(nullptr, &info);
  info.status = status;
  throw Error(info);
}

template <class Info, class Handle>
Info info_of(const Handle* handle, adamas_status (*get)(const Handle*, Info*)) {
  Info info{};
  check(get(handle, &info));
  return info;
}

template <auto Destroy>
struct Destroyer {
  template <class Handle>
  void operator()(Handle* handle) const noexcept {
    Destroy(handle);
  }
};

template <class Handle, auto Destroy>
using Owned = std::unique_ptr<Handle, Destroyer<Destroy>>;

}  // namespace detail

/// Batch and policy of a call. Cheap to make; keeps its kernel alive; usable from any thread.
class Plan {
 public:
  adamas_plan_info info() const { return detail::info_of(handle_.get(), adamas_plan_get_info); }

  void select(const Call& call, void* stream = nullptr) const { run(adamas_select, call, stream); }
  void attend(const Call& call, void* stream = nullptr) const { run(adamas_attend, call, stream); }
  void decode(const Call& call, void* stream = nullptr) const { run(adamas_decode, call, stream); }
  void dense(const Call& call, void* stream = nullptr) const { run(adamas_dense, call, stream); }

  const adamas_plan* get() const noexcept { return handle_.get(); }

 private:
  friend class Kernel;
  explicit Plan(adamas_plan* handle) : handle_(handle) {}
  using Operation = adamas_status (*)(const adamas_plan*, const adamas_call*, void*);
  void run(Operation operation, const Call& call, void* stream) const {
    detail::check(operation(handle_.get(), &call, stream));
  }

  detail::Owned<adamas_plan, adamas_plan_destroy> handle_;
};

/// The compiled and loaded kernels of one Spec. Keeps its context alive; usable from any thread.
class Kernel {
 public:
  adamas_kernel_info info() const { return detail::info_of(handle_.get(), adamas_kernel_get_info); }

  Plan plan(const PlanOptions& options) const {
    adamas_plan* plan = nullptr;
    detail::check(adamas_plan_create(handle_.get(), &options, &plan));
    return Plan(plan);
  }

  void encode(const EncodeArgs& args, void* stream = nullptr) const {
    detail::check(adamas_encode(handle_.get(), &args, stream));
  }
  /// Compares codes with their keys and reports; rebuild also writes those that differ. See
  /// adamas_check_args.
  void check(const CheckArgs& args, void* stream = nullptr) const {
    detail::check(adamas_check(handle_.get(), &args, stream));
  }
  void rebuild(const CheckArgs& args, void* stream = nullptr) const {
    detail::check(adamas_rebuild(handle_.get(), &args, stream));
  }
  void codes_export(const CodesArgs& args, void* stream = nullptr) const {
    detail::check(adamas_codes_export(handle_.get(), &args, stream));
  }
  void codes_import(const CodesArgs& args, void* stream = nullptr) const {
    detail::check(adamas_codes_import(handle_.get(), &args, stream));
  }

  /// The complete kernel in place of a dense one; empty while it is being compiled. See adamas_refresh.
  std::optional<Kernel> refresh(void* stream = nullptr) const {
    adamas_kernel* kernel = nullptr;
    const adamas_status status = adamas_refresh(handle_.get(), stream, &kernel);
    if (status == ADAMAS_TIMEOUT) return std::nullopt;
    detail::check(status);
    return Kernel(kernel);
  }

  const adamas_kernel* get() const noexcept { return handle_.get(); }

 private:
  friend class Context;
  friend class Future;
  explicit Kernel(adamas_kernel* handle) : handle_(handle) {}
  detail::Owned<adamas_kernel, adamas_kernel_destroy> handle_;
};

/// A kernel being prepared on a thread of its own. Its destructor waits for that thread.
class Future {
 public:
  /// Waits until it is ready. Rethrows what preparing threw.
  Kernel get() const {
    adamas_kernel* kernel = nullptr;
    detail::check(adamas_future_wait(handle_.get(), -1, &kernel));
    return Kernel(kernel);
  }
  /// Waits at most timeout_ms; empty while it is not ready.
  std::optional<Kernel> wait(std::int64_t timeout_ms) const {
    adamas_kernel* kernel = nullptr;
    const adamas_status status = adamas_future_wait(handle_.get(), timeout_ms, &kernel);
    if (status == ADAMAS_TIMEOUT) return std::nullopt;
    detail::check(status);
    return Kernel(kernel);
  }

 private:
  friend class Context;
  explicit Future(adamas_future* handle) : handle_(handle) {}
  detail::Owned<adamas_future, adamas_future_destroy> handle_;
};

/// Device memory of a context, for programs that have no allocator of their own.
template <class T>
class Buffer {
 public:
  T* data() const noexcept { return data_.get(); }
  std::size_t size() const noexcept { return size_; }

  /// Both block until the copy, and what the stream held before it, is done.
  void upload(std::span<const T> values, void* stream = nullptr) const {
    check_size(values.size());
    detail::check(adamas_copy(context_, data_.get(), values.data(), values.size_bytes(),
                              ADAMAS_HOST_TO_DEVICE, stream));
  }
  std::vector<T> download(void* stream = nullptr) const {
    std::vector<T> values(size_);
    detail::check(
        adamas_copy(context_, values.data(), data_.get(), size_ * sizeof(T), ADAMAS_DEVICE_TO_HOST, stream));
    return values;
  }

 private:
  friend class Context;
  struct Free {
    adamas_context* context;
    void operator()(T* pointer) const noexcept { adamas_free(context, pointer); }
  };
  Buffer(adamas_context* context, std::size_t size)
      : context_(context), size_(size), data_(nullptr, Free{context}) {
    void* pointer = nullptr;
    detail::check(adamas_alloc(context, size * sizeof(T), &pointer));
    data_.reset(static_cast<T*>(pointer));
  }
  void check_size(std::size_t size) const {
    if (size > size_) throw std::length_error("adamas::Buffer: more values than it holds");
  }

  adamas_context* context_;  // outlives the buffer: the caller's Context does
  std::size_t size_;
  std::unique_ptr<T, Free> data_;
};

/// Has launches of a CPU context run on the host's own threads.
/// @param parallel_for  called as parallel_for(count, each), must call each(i) once for every i < count, on
/// whatever
///                      threads, and return when all have returned; without exceptions, by several threads at
///                      once. Lives as long as the context and what was made from it.
template <class ParallelFor>
void use_parallel_for(ContextOptions& options, ParallelFor& parallel_for) {
  options.parallel_for = [](void* user, std::size_t count, adamas_parallel_body body, void* body_arg) {
    (*static_cast<ParallelFor*>(user))(count, [body, body_arg](std::size_t index) { body(body_arg, index); });
  };
  options.parallel_for_user = &parallel_for;
}

/// One device, one kernel cache. Usable from any thread.
class Context {
 public:
  /// @param device "auto" (the first that works), "cpu", "cuda:N"
  explicit Context(const char* device = "auto") : Context(ContextOptions{.device = device}) {}
  explicit Context(const ContextOptions& options) {
    adamas_context* context = nullptr;
    detail::check(adamas_context_create(&options, &context));
    handle_.reset(context);
  }

  adamas_context_info info() const { return detail::info_of(const_get(), adamas_context_get_info); }
  CacheCounters cache_counters() const { return detail::info_of(const_get(), adamas_cache_get_counters); }

  /// The only call that may compile, load or allocate.
  Kernel prepare(const std::string& spec, const Capacity& capacity, const std::string& tuning = {}) const {
    adamas_kernel* kernel = nullptr;
    detail::check(adamas_prepare(handle_.get(), spec.c_str(), tuning.c_str(), &capacity, &kernel));
    return Kernel(kernel);
  }
  Future prepare_async(const std::string& spec, const Capacity& capacity,
                       const std::string& tuning = {}) const {
    adamas_future* future = nullptr;
    detail::check(adamas_prepare_async(handle_.get(), spec.c_str(), tuning.c_str(), &capacity, &future));
    return Future(future);
  }

  /// Thresholds from samples in host memory; see adamas_calibrate_args.
  void calibrate(const std::string& spec, const adamas_calibrate_args& args) const {
    detail::check(adamas_calibrate(handle_.get(), spec.c_str(), &args));
  }

  void clear(void* counters, void* stream = nullptr) const {
    detail::check(adamas_counters_clear(handle_.get(), counters, stream));
  }
  /// Waits for the stream and returns what the kernels counted.
  Counters read(const void* counters, void* stream = nullptr) const {
    Counters host{};
    detail::check(adamas_counters_read(handle_.get(), counters, &host, stream));
    synchronize(stream);
    return host;
  }
  void synchronize(void* stream = nullptr) const { detail::check(adamas_synchronize(handle_.get(), stream)); }

  template <class T>
  Buffer<T> allocate(std::size_t size) const {
    return Buffer<T>(handle_.get(), size);
  }
  template <class T>
  Buffer<T> upload(std::span<const T> values, void* stream = nullptr) const {
    Buffer<T> buffer = allocate<T>(values.size());
    buffer.upload(values, stream);
    return buffer;
  }

  adamas_context* get() const noexcept { return handle_.get(); }

 private:
  const adamas_context* const_get() const noexcept { return handle_.get(); }
  detail::Owned<adamas_context, adamas_context_destroy> handle_;
};

}  // namespace adamas
