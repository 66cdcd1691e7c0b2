// Any allocation of the library that fails: every call returns a status, nothing is thrown across the C
// boundary, nothing terminates, and the library works again afterwards.
//
// This program's operator new takes the place of the library's, and fails at the n-th allocation from a given
// moment. Those after it succeed: nlohmann's json needs some to be destroyed, so a process that cannot get
// one byte more is beyond help.
#include <adamas/adamas.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::atomic<long> allocations_left{-1};  // negative: without end

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) == 0) return nullptr;
  const std::size_t whole = (bytes + alignment) / alignment * alignment;
  return std::aligned_alloc(alignment, whole);
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const memory = allocate(bytes, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

constexpr std::size_t kAlignment = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

}  // namespace

void* operator new(std::size_t bytes) { return allocate_or_throw(bytes, kAlignment); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes, kAlignment); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate_or_throw(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes, kAlignment); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, kAlignment);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace {

constexpr const char* kSpec = "head_dim=64 budget=8 kv_type=f32 cache_form=contiguous";
constexpr adamas_capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};

/// What a host does from start to end, as far as it gets.
/// @return  the first status that is not ADAMAS_OK
adamas_status use_library(adamas_compile_policy compile) {
  const adamas_context_options options{
      .device = "cpu", .threads = 2, .log = [](void*, adamas_log_level, const char*) {}, .compile = compile};
  const adamas_plan_options plan_options{.batch = 1};
  adamas_context* context = nullptr;
  adamas_kernel* kernel = nullptr;
  adamas_plan* plan = nullptr;
  adamas_plan_info info;
  adamas_status status = adamas_context_create(&options, &context);
  if (status == ADAMAS_OK) status = adamas_prepare(context, kSpec, nullptr, &kCapacity, &kernel);
  if (status == ADAMAS_OK) status = adamas_plan_create(kernel, &plan_options, &plan);
  if (status == ADAMAS_OK) status = adamas_plan_get_info(plan, &info);
  if (status == ADAMAS_OK) {
    const adamas_call none;
    if (adamas_decode(plan, &none, nullptr) == ADAMAS_OK) status = ADAMAS_INTERNAL;  // it has no pointers
  }
  adamas_error_info error;
  adamas_last_error(context, &error);
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
  return status;
}

}  // namespace

int main() {
  if (const adamas_status status = use_library(ADAMAS_COMPILE_ALLOW); status != ADAMAS_OK) {
    std::printf("with all memory: %s\n", adamas_status_name(status));
    return 1;
  }
  constexpr long kMost = 1'000'000;
  allocations_left = kMost;
  use_library(ADAMAS_COMPILE_DENY);
  const long all = kMost - allocations_left;
  allocations_left = -1;

  long failures = 0, out_of_memory = 0;
  for (long n = 0; n < all; ++n) {
    allocations_left = n;
    const adamas_status status = use_library(ADAMAS_COMPILE_DENY);
    allocations_left = -1;
    // A cache that cannot be read for want of memory has no kernel: `deny` says so.
    const bool expected =
        status == ADAMAS_OUT_OF_MEMORY || status == ADAMAS_UNAVAILABLE || status == ADAMAS_OK;
    if (!expected) {
      std::printf("allocation %ld of %ld: %s\n", n, all, adamas_status_name(status));
      ++failures;
    }
    if (status == ADAMAS_OUT_OF_MEMORY) ++out_of_memory;
  }
  const adamas_status after = use_library(ADAMAS_COMPILE_DENY);
  std::printf("each of %ld allocations failed in turn, %ld calls ran out of memory; afterwards: %s\n", all,
              out_of_memory, adamas_status_name(after));
  return failures == 0 && out_of_memory > all / 2 && after == ADAMAS_OK ? 0 : 1;
}
