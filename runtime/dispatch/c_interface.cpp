// The C interface of adamas.h over Context, Kernel, Plan and the operations. No logic of its own.
#include <adamas/adamas.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <utility>

#include "runtime/dispatch/boundary.hpp"
#include "runtime/dispatch/calibrate.hpp"
#include "runtime/dispatch/operations.hpp"

namespace {

using adamas::codegen::Error;
namespace runtime = adamas::runtime;
using runtime::check_out;
using runtime::checked_handle;
using runtime::error_scope;
using runtime::guarded;
using runtime::HandleStore;
using runtime::Magic;
using runtime::sized_copy;
using runtime::sized_fill;

#define ADAMAS_TEXT_OF(number) #number
#define ADAMAS_TEXT(number) ADAMAS_TEXT_OF(number)
#define ADAMAS_VERSION_TEXT         \
  ADAMAS_TEXT(ADAMAS_VERSION_MAJOR) \
  "." ADAMAS_TEXT(ADAMAS_VERSION_MINOR) "." ADAMAS_TEXT(ADAMAS_VERSION_PATCH)

runtime::LogFn log_function(const adamas_context_options& options) {
  if (options.log == nullptr) {
    return [](runtime::LogLevel level, const std::string& message) {
      if (level == runtime::LogLevel::warning) std::fprintf(stderr, "adamas: %s\n", message.c_str());
    };
  }
  return [log = options.log, user = options.log_user](runtime::LogLevel level, const std::string& message) {
    try {
      log(user, level == runtime::LogLevel::warning ? ADAMAS_LOG_WARNING : ADAMAS_LOG_INFO, message.c_str());
    } catch (...) {
      // A host's logger that fails is no reason for a kernel to: the line is lost.
    }
  };
}

runtime::Capacity capacity_of(const adamas_capacity* given) {
  const auto capacity = sized_copy(given, "capacity");
  return {.max_batch = capacity.max_batch,
          .kv_heads = capacity.kv_heads,
          .max_tokens = capacity.max_tokens,
          .max_slots = capacity.max_slots};
}

runtime::CompilePolicy policy_of(int32_t compile) {
  switch (compile) {
    case ADAMAS_COMPILE_DEFAULT:
      return runtime::parse_compile_policy("");
    case ADAMAS_COMPILE_ALLOW:
      return runtime::CompilePolicy::allow;
    case ADAMAS_COMPILE_DENY:
      return runtime::CompilePolicy::deny;
    case ADAMAS_COMPILE_BACKGROUND:
      return runtime::CompilePolicy::background;
  }
  throw Error(ADAMAS_INVALID_ARGUMENT, "options.compile", fmt::to_string(compile),
              "must be an adamas_compile_policy, 0..3", "0 takes $ADAMAS_COMPILE, else allows it");
}

int32_t policy_code(runtime::CompilePolicy policy) {
  switch (policy) {
    case runtime::CompilePolicy::deny:
      return ADAMAS_COMPILE_DENY;
    case runtime::CompilePolicy::background:
      return ADAMAS_COMPILE_BACKGROUND;
    case runtime::CompilePolicy::allow:
      break;
  }
  return ADAMAS_COMPILE_ALLOW;
}

int32_t state_of(const runtime::Kernel& kernel) {
  if (kernel.waits_for() == nullptr) return ADAMAS_KERNEL_COMPLETE;
  switch (kernel.waits_for()->state()) {
    case runtime::BackgroundJob::State::ready:
      return ADAMAS_KERNEL_DENSE_REFRESHABLE;
    case runtime::BackgroundJob::State::failed:
      return ADAMAS_KERNEL_DENSE_FAILED;
    case runtime::BackgroundJob::State::compiling:
      break;
  }
  return ADAMAS_KERNEL_DENSE;
}

std::string text_or_empty(const char* text) { return text == nullptr ? "" : text; }

adamas_kernel* make_handle(std::shared_ptr<const runtime::Kernel> kernel) {
  adamas_kernel handle;
  handle.spec = kernel->spec().text();
  handle.tuning = kernel->tuning().text();
  handle.layout_id = kernel->device().generator().layout_id(kernel->spec());
  handle.kernel = std::move(kernel);
  return HandleStore<adamas_kernel>::put(std::move(handle));
}

runtime::Context& live_context(adamas_context* handle) {
  runtime::Context& context = *checked_handle(handle, Magic::context, "context").context;
  context.check_process();
  return context;
}

const runtime::Kernel& live_kernel(const adamas_kernel* handle) {
  const runtime::Kernel& kernel = *checked_handle(handle, Magic::kernel, "kernel").kernel;
  kernel.context().check_process();
  return kernel;
}

const runtime::Plan& live_plan(const adamas_plan* handle) {
  const runtime::Plan& plan = *checked_handle(handle, Magic::plan, "plan").plan;
  plan.kernel().context().check_process();
  return plan;
}

template <class Handle>
void destroy(Handle* handle, Magic magic) {
  if (handle == nullptr || handle->magic != magic) return;
  const Handle content = HandleStore<Handle>::take(handle);
}

void check_counters(const void* counters) {
  check_out(counters, "counters");
  if (reinterpret_cast<std::uintptr_t>(counters) % 16 != 0) {
    throw Error(ADAMAS_INVALID_ARGUMENT, "counters", fmt::format("{}", counters),
                "must be aligned to 16 bytes");
  }
}

using CallOperation = void (*)(const runtime::Plan&, const adamas_call&, runtime::Stream);
adamas_status run_call(const adamas_plan* plan, const adamas_call* call, void* stream,
                       CallOperation operation) {
  return guarded(error_scope(plan, Magic::plan),
                 [&] { operation(live_plan(plan), sized_copy(call, "call"), stream); });
}

adamas_status run_check(const adamas_kernel* kernel, const adamas_check_args* args, bool mend, void* stream) {
  return guarded(error_scope(kernel, Magic::kernel),
                 [&] { runtime::check(live_kernel(kernel), sized_copy(args, "args"), mend, stream); });
}

using CodesOperation = void (*)(const runtime::Kernel&, const adamas_codes_args&, runtime::Stream);
adamas_status run_codes(const adamas_kernel* kernel, const adamas_codes_args* args, void* stream,
                        CodesOperation operation) {
  return guarded(error_scope(kernel, Magic::kernel),
                 [&] { operation(live_kernel(kernel), sized_copy(args, "args"), stream); });
}

}  // namespace

extern "C" {

const char* adamas_version() { return ADAMAS_VERSION_TEXT; }

const char* adamas_status_name(adamas_status status) {
  switch (status) {
    case ADAMAS_OK:
      return "ok";
    case ADAMAS_INVALID_SPEC:
      return "invalid_spec";
    case ADAMAS_UNSUPPORTED:
      return "unsupported";
    case ADAMAS_INVALID_ARGUMENT:
      return "invalid_argument";
    case ADAMAS_UNAVAILABLE:
      return "unavailable";
    case ADAMAS_COMPILE_FAILED:
      return "compile_failed";
    case ADAMAS_DEVICE_ERROR:
      return "device_error";
    case ADAMAS_IO_ERROR:
      return "io_error";
    case ADAMAS_OUT_OF_MEMORY:
      return "out_of_memory";
    case ADAMAS_INVALID_HANDLE:
      return "invalid_handle";
    case ADAMAS_TIMEOUT:
      return "timeout";
    case ADAMAS_INTERNAL:
      return "internal";
  }
  return "unknown";
}

adamas_status adamas_last_error(const adamas_context* ctx, adamas_error_info* info) {
  return runtime::recall_error(error_scope(ctx, Magic::context), info);
}

adamas_status adamas_context_create(const adamas_context_options* options, adamas_context** out) {
  return guarded(0, [&] {
    check_out(out, "out");
    *out = nullptr;
    const auto given = sized_copy(options, "options");
    if (given.threads < 0) {
      throw Error(ADAMAS_INVALID_ARGUMENT, "options.threads", fmt::to_string(given.threads),
                  "must not be negative", "0 takes one for each CPU the process may use");
    }
    if (given.parallel_for == nullptr && given.parallel_for_user != nullptr) {
      throw Error(ADAMAS_INVALID_ARGUMENT, "options.parallel_for", "null",
                  "must be a function where parallel_for_user is given",
                  "leave out parallel_for_user to have launches run on the library's own threads");
    }
    adamas_context handle;
    const auto optional_text = [](const char* text) {
      return text == nullptr ? std::nullopt : std::optional<std::string>(text);
    };
    handle.context = std::make_shared<runtime::Context>(runtime::ContextConfig{
        .device = given.device == nullptr ? "auto" : given.device,
        .cache = {.directory = optional_text(given.cache_dir),
                  .packs = optional_text(given.packs),
                  .log = log_function(given)},
        .threads = given.threads,
        .parallel_for = {.function = given.parallel_for, .user = given.parallel_for_user},
        .allocator = {.allocate = given.allocate, .release = given.release, .user = given.allocator_user},
        .policy = policy_of(given.compile),
        .tuning = optional_text(given.tuning)});
    const runtime::Device& device = handle.context->device();
    handle.device_id = device.id();
    handle.device_name = device.name();
    handle.target = device.targets().front();
    *out = HandleStore<adamas_context>::put(std::move(handle));
  });
}

void adamas_context_destroy(adamas_context* ctx) { destroy(ctx, Magic::context); }

adamas_status adamas_context_get_info(const adamas_context* ctx, adamas_context_info* info) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    const auto& handle = checked_handle(ctx, Magic::context, "context");
    sized_fill(info,
               adamas_context_info{.struct_size = 0,
                                   .device = handle.device_id.c_str(),
                                   .device_name = handle.device_name.c_str(),
                                   .target = handle.target.c_str(),
                                   .cache_dir = handle.context->cache().directory().c_str(),
                                   .compile = policy_code(handle.context->policy()),
                                   .packs = static_cast<int32_t>(handle.context->cache().packs().size())},
               "info");
  });
}

adamas_status adamas_cache_get_counters(const adamas_context* ctx, adamas_cache_counters* counters) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    const runtime::CacheCounters counted =
        checked_handle(ctx, Magic::context, "context").context->cache().counters();
    sized_fill(counters,
               adamas_cache_counters{.struct_size = 0,
                                     .compiles = counted.compiles,
                                     .hits_memory = counted.hits_memory,
                                     .hits_pack = counted.hits_pack,
                                     .hits_folder = counted.hits_disk,
                                     .misses = counted.misses,
                                     .waits = counted.waits,
                                     .wait_timeouts = counted.wait_timeouts,
                                     .rejected = counted.rejected,
                                     .fallbacks = counted.fallbacks},
               "counters");
  });
}

adamas_status adamas_prepare(adamas_context* ctx, const char* spec, const char* tuning,
                             const adamas_capacity* capacity, adamas_kernel** out) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    check_out(out, "out");
    *out = nullptr;
    live_context(ctx);
    *out = make_handle(runtime::Kernel::prepare(ctx->context, text_or_empty(spec), text_or_empty(tuning),
                                                capacity_of(capacity)));
  });
}

void adamas_kernel_destroy(adamas_kernel* kernel) { destroy(kernel, Magic::kernel); }

adamas_status adamas_prepare_async(adamas_context* ctx, const char* spec, const char* tuning,
                                   const adamas_capacity* capacity, adamas_future** out) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    check_out(out, "out");
    *out = nullptr;
    const std::string spec_text = text_or_empty(spec), tuning_text = text_or_empty(tuning);
    const auto wanted = capacity_of(capacity);
    runtime::Kernel::check(live_context(ctx), spec_text, tuning_text, wanted);
    adamas_future handle;
    handle.context = ctx->context;
    handle.result = std::async(std::launch::async, [context = ctx->context, spec_text, tuning_text, wanted] {
                      return runtime::Kernel::prepare(context, spec_text, tuning_text, wanted);
                    }).share();
    *out = HandleStore<adamas_future>::put(std::move(handle));
  });
}

adamas_status adamas_future_wait(adamas_future* future, int64_t timeout_ms, adamas_kernel** out) {
  return guarded(error_scope(future, Magic::future), [&] {
    check_out(out, "out");
    *out = nullptr;
    auto& handle = checked_handle(future, Magic::future, "future");
    handle.context->check_process();
    if (timeout_ms >= 0 &&
        handle.result.wait_for(std::chrono::milliseconds(timeout_ms)) != std::future_status::ready) {
      throw Error(ADAMAS_TIMEOUT, "timeout_ms", fmt::to_string(timeout_ms),
                  "ended before the kernel was ready", "wait again");
    }
    *out = make_handle(handle.result.get());
  });
}

void adamas_future_destroy(adamas_future* future) { destroy(future, Magic::future); }

adamas_status adamas_refresh(const adamas_kernel* kernel, void* stream, adamas_kernel** out) {
  return guarded(error_scope(kernel, Magic::kernel), [&] {
    check_out(out, "out");
    *out = nullptr;
    live_kernel(kernel);
    auto refreshed = runtime::Kernel::refresh(kernel->kernel, stream);
    if (!refreshed) {
      throw Error(ADAMAS_TIMEOUT, "kernel", "dense", "is still being compiled", "refresh again later");
    }
    *out = make_handle(std::move(refreshed));
  });
}

adamas_status adamas_kernel_get_info(const adamas_kernel* kernel, adamas_kernel_info* info) {
  return guarded(error_scope(kernel, Magic::kernel), [&] {
    const auto& handle = checked_handle(kernel, Magic::kernel, "kernel");
    const runtime::Kernel& made = *handle.kernel;
    const runtime::PrepareReport& report = made.report();
    sized_fill(info,
               adamas_kernel_info{.struct_size = 0,
                                  .spec = handle.spec.c_str(),
                                  .tuning = handle.tuning.c_str(),
                                  .target = report.target.c_str(),
                                  .units = report.units,
                                  .compiles = report.compiles,
                                  .compile_ms = report.compile_ms,
                                  .load_ms = report.load_ms,
                                  .layout_id = handle.layout_id.c_str(),
                                  .code_bytes = made.code_bytes(),
                                  .code_row_bytes = static_cast<uint32_t>(
                                      made.device().generator().code_row_bytes(made.spec())),
                                  .state = state_of(made)},
               "info");
  });
}

adamas_status adamas_plan_create(const adamas_kernel* kernel, const adamas_plan_options* options,
                                 adamas_plan** out) {
  return guarded(error_scope(kernel, Magic::kernel), [&] {
    check_out(out, "out");
    *out = nullptr;
    live_kernel(kernel);
    const auto given = sized_copy(options, "options");
    adamas_plan handle;
    handle.plan = std::make_shared<const runtime::Plan>(kernel->kernel, given.batch, given.dense_below,
                                                          given.expected_tokens);
    *out = HandleStore<adamas_plan>::put(std::move(handle));
  });
}

void adamas_plan_destroy(adamas_plan* plan) { destroy(plan, Magic::plan); }

adamas_status adamas_plan_get_info(const adamas_plan* plan, adamas_plan_info* info) {
  return guarded(error_scope(plan, Magic::plan), [&] {
    const runtime::Plan& made = *checked_handle(plan, Magic::plan, "plan").plan;
    sized_fill(info,
               adamas_plan_info{.struct_size = 0,
                                .rows = made.rows(),
                                .selections = made.kernel().selections(),
                                .workspace_bytes = made.workspace().bytes,
                                .dense_workspace_bytes = made.dense_workspace().bytes,
                                .tuning = made.kernel().variants()[made.variant()].text.c_str()},
               "info");
  });
}

adamas_status adamas_encode(const adamas_kernel* kernel, const adamas_encode_args* args, void* stream) {
  return guarded(error_scope(kernel, Magic::kernel),
                 [&] { runtime::encode(live_kernel(kernel), sized_copy(args, "args"), stream); });
}

adamas_status adamas_check(const adamas_kernel* kernel, const adamas_check_args* args, void* stream) {
  return run_check(kernel, args, false, stream);
}

adamas_status adamas_rebuild(const adamas_kernel* kernel, const adamas_check_args* args, void* stream) {
  return run_check(kernel, args, true, stream);
}

adamas_status adamas_codes_export(const adamas_kernel* kernel, const adamas_codes_args* args, void* stream) {
  return run_codes(kernel, args, stream, runtime::codes_export);
}

adamas_status adamas_codes_import(const adamas_kernel* kernel, const adamas_codes_args* args, void* stream) {
  return run_codes(kernel, args, stream, runtime::codes_import);
}

adamas_status adamas_select(const adamas_plan* plan, const adamas_call* call, void* stream) {
  return run_call(plan, call, stream, runtime::select);
}

adamas_status adamas_attend(const adamas_plan* plan, const adamas_call* call, void* stream) {
  return run_call(plan, call, stream, runtime::attend);
}

adamas_status adamas_decode(const adamas_plan* plan, const adamas_call* call, void* stream) {
  return run_call(plan, call, stream, runtime::decode);
}

adamas_status adamas_dense(const adamas_plan* plan, const adamas_call* call, void* stream) {
  return run_call(plan, call, stream, runtime::dense);
}

adamas_status adamas_counters_clear(adamas_context* ctx, void* counters, void* stream) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    check_counters(counters);
    live_context(ctx).device().clear(counters, ADAMAS_COUNTERS_BYTES, stream);
  });
}

adamas_status adamas_counters_read(adamas_context* ctx, const void* counters, adamas_counters* host,
                                   void* stream) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    check_counters(counters);
    check_out(host, "host");
    live_context(ctx).device().copy_to_host_async(host, counters, ADAMAS_COUNTERS_BYTES, stream);
  });
}

adamas_status adamas_calibrate(adamas_context* ctx, const char* spec, const adamas_calibrate_args* args) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    live_context(ctx);
    const auto given = sized_copy(args, "args");
    check_out(given.key_thresholds, "key_thresholds");
    const auto parsed = adamas::codegen::Spec::parse(text_or_empty(spec));
    const auto thresholds = runtime::calibrate(parsed, {.keys = given.keys,
                                                        .queries = given.queries,
                                                        .key_count = given.key_count,
                                                        .query_count = given.query_count,
                                                        .kv_heads = given.kv_heads});
    if (given.query_thresholds != nullptr) {
      if (thresholds.query.empty()) {
        throw Error(ADAMAS_INVALID_ARGUMENT, "queries", "none", "query thresholds need sample queries");
      }
      std::copy(thresholds.query.begin(), thresholds.query.end(), given.query_thresholds);
    }
    std::copy(thresholds.key.begin(), thresholds.key.end(), given.key_thresholds);
  });
}

adamas_status adamas_alloc(adamas_context* ctx, uint64_t bytes, void** out) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    check_out(out, "out");
    *out = nullptr;
    *out = live_context(ctx).memory().allocate(bytes);
  });
}

adamas_status adamas_free(adamas_context* ctx, void* pointer) {
  return guarded(error_scope(ctx, Magic::context), [&] { live_context(ctx).memory().release(pointer); });
}

adamas_status adamas_copy(adamas_context* ctx, void* to, const void* from, uint64_t bytes,
                          adamas_copy_kind kind, void* stream) {
  return guarded(error_scope(ctx, Magic::context), [&] {
    const runtime::Device& device = live_context(ctx).device();
    if (bytes == 0) return;
    check_out(to, "to");
    check_out(from, "from");
    if (kind == ADAMAS_HOST_TO_DEVICE) {
      device.copy_to_device(to, from, bytes, stream);
    } else {
      device.copy_to_host(to, from, bytes, stream);
    }
  });
}

adamas_status adamas_synchronize(adamas_context* ctx, void* stream) {
  return guarded(error_scope(ctx, Magic::context), [&] { live_context(ctx).device().synchronize(stream); });
}

}  // extern "C"
