// Every function of the ABI with null, foreign and destroyed handles, and with null, short and long structs.
// The list of symbols says which functions there are: one that is not tested here fails.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <adamas/adamas.h>

#include "tests/dispatch/refusal.hpp"

namespace adamas::tests {
namespace {

constexpr adamas_capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};

/// One of each, alive until the test destroys them.
struct Handles {
  adamas_context* context = nullptr;
  adamas_kernel* kernel = nullptr;
  adamas_plan* plan = nullptr;
  adamas_future* future = nullptr;

  Handles() {
    const adamas_context_options options{.device = "cpu"};
    const adamas_plan_options plan_options{.batch = 1};
    REQUIRE(adamas_context_create(&options, &context) == ADAMAS_OK);
    REQUIRE(adamas_prepare(context, "", nullptr, &kCapacity, &kernel) == ADAMAS_OK);
    REQUIRE(adamas_plan_create(kernel, &plan_options, &plan) == ADAMAS_OK);
    REQUIRE(adamas_prepare_async(context, "", nullptr, &kCapacity, &future) == ADAMAS_OK);
  }
  Handles(const Handles&) = delete;
  ~Handles() { destroy(); }

  void destroy() const {
    adamas_future_destroy(future);
    adamas_plan_destroy(plan);
    adamas_kernel_destroy(kernel);
    adamas_context_destroy(context);
  }
};

enum class Kind { none, context, kernel, plan, future };

/// A function as tests call it: with any handle in place of its own, all else valid; and with any struct in
/// place of its own on a live handle. Empty where it has none.
struct Function {
  Kind kind = Kind::none;
  std::function<adamas_status(void* handle)> with_handle = {};
  std::function<adamas_status(const Handles&, void* structure)> with_struct = {};
  std::size_t struct_bytes = 0;
  bool fills = false;  ///< the struct is filled, not read
};

template <class Struct, class Call>
Function function(Kind kind, Call call, bool fills = false) {
  return {.kind = kind,
          .with_handle =
              [call](void* handle) {
                Struct valid{};
                return call(handle, &valid);
              },
          .with_struct =
              [kind, call](const Handles& handles, void* structure) {
                void* const all[] = {nullptr, handles.context, handles.kernel, handles.plan, handles.future};
                return call(all[static_cast<int>(kind)], static_cast<Struct*>(structure));
              },
          .struct_bytes = sizeof(Struct),
          .fills = fills};
}

Function function_of_call(adamas_status (*operation)(const adamas_plan*, const adamas_call*, void*)) {
  return function<adamas_call>(Kind::plan, [operation](void* handle, adamas_call* call) {
    return operation(static_cast<adamas_plan*>(handle), call, nullptr);
  });
}

template <class Args>
Function function_of_kernel(adamas_status (*operation)(const adamas_kernel*, const Args*, void*)) {
  return function<Args>(Kind::kernel, [operation](void* handle, Args* args) {
    return operation(static_cast<adamas_kernel*>(handle), args, nullptr);
  });
}

template <class Handle, class Info>
Function function_of_info(Kind kind, adamas_status (*get)(const Handle*, Info*)) {
  return function<Info>(
      kind, [get](void* handle, Info* info) { return get(static_cast<Handle*>(handle), info); }, true);
}

/// A call without a struct; `call` gets the handle.
template <class Call>
Function function_without_struct(Kind kind, Call call) {
  return {.kind = kind, .with_handle = call};
}

void destroys_kernel(adamas_kernel* kernel) { adamas_kernel_destroy(kernel); }

std::map<std::string, Function> functions() {
  const auto context = [](void* handle) { return static_cast<adamas_context*>(handle); };
  const auto kernel = [](void* handle) { return static_cast<adamas_kernel*>(handle); };
  alignas(16) static unsigned char counters[ADAMAS_COUNTERS_BYTES];
  static char bytes[16];
  return {
      {"adamas_version", {}},      // no handle, no struct: tested below
      {"adamas_status_name", {}},  // likewise
      {"adamas_context_destroy", {}},
      {"adamas_kernel_destroy", {}},
      {"adamas_plan_destroy", {}},
      {"adamas_future_destroy", {}},
      {"adamas_last_error",
       {.with_struct =
            [](const Handles& handles, void* info) {
              return adamas_last_error(handles.context, static_cast<adamas_error_info*>(info));
            },
        .struct_bytes = sizeof(adamas_error_info),
        .fills = true}},
      {"adamas_context_create", function<adamas_context_options>(Kind::none,
                                                                 [](void*, adamas_context_options* options) {
                                                                   adamas_context* made = nullptr;
                                                                   const auto status =
                                                                       adamas_context_create(options, &made);
                                                                   adamas_context_destroy(made);
                                                                   return status;
                                                                 })},
      {"adamas_context_get_info", function_of_info(Kind::context, adamas_context_get_info)},
      {"adamas_cache_get_counters", function_of_info(Kind::context, adamas_cache_get_counters)},
      {"adamas_prepare",
       function<adamas_capacity>(Kind::context,
                                 [context](void* handle, adamas_capacity* capacity) {
                                   adamas_kernel* made = nullptr;
                                   if (capacity != nullptr && capacity->struct_size == sizeof kCapacity)
                                     *capacity = kCapacity;
                                   const auto status =
                                       adamas_prepare(context(handle), "", nullptr, capacity, &made);
                                   destroys_kernel(made);
                                   return status;
                                 })},
      {"adamas_prepare_async", function<adamas_capacity>(Kind::context,
                                                         [context](void* handle, adamas_capacity* capacity) {
                                                           adamas_future* made = nullptr;
                                                           const auto status = adamas_prepare_async(
                                                               context(handle), "", nullptr, capacity, &made);
                                                           adamas_future_destroy(made);
                                                           return status;
                                                         })},
      {"adamas_future_wait", function_without_struct(Kind::future,
                                                     [](void* handle) {
                                                       adamas_kernel* made = nullptr;
                                                       const auto status = adamas_future_wait(
                                                           static_cast<adamas_future*>(handle), -1, &made);
                                                       destroys_kernel(made);
                                                       return status;
                                                     })},
      {"adamas_refresh", function_without_struct(Kind::kernel,
                                                 [kernel](void* handle) {
                                                   adamas_kernel* made = nullptr;
                                                   const auto status =
                                                       adamas_refresh(kernel(handle), nullptr, &made);
                                                   destroys_kernel(made);
                                                   return status;
                                                 })},
      {"adamas_kernel_get_info", function_of_info(Kind::kernel, adamas_kernel_get_info)},
      {"adamas_plan_create",
       function<adamas_plan_options>(Kind::kernel,
                                     [kernel](void* handle, adamas_plan_options* options) {
                                       adamas_plan* made = nullptr;
                                       const auto status = adamas_plan_create(kernel(handle), options, &made);
                                       adamas_plan_destroy(made);
                                       return status;
                                     })},
      {"adamas_plan_get_info", function_of_info(Kind::plan, adamas_plan_get_info)},
      {"adamas_encode", function_of_kernel(adamas_encode)},
      {"adamas_check", function_of_kernel(adamas_check)},
      {"adamas_rebuild", function_of_kernel(adamas_rebuild)},
      {"adamas_codes_export", function_of_kernel(adamas_codes_export)},
      {"adamas_codes_import", function_of_kernel(adamas_codes_import)},
      {"adamas_select", function_of_call(adamas_select)},
      {"adamas_attend", function_of_call(adamas_attend)},
      {"adamas_decode", function_of_call(adamas_decode)},
      {"adamas_dense", function_of_call(adamas_dense)},
      {"adamas_counters_clear", function_without_struct(Kind::context,
                                                        [context](void* handle) {
                                                          return adamas_counters_clear(context(handle),
                                                                                       counters, nullptr);
                                                        })},
      {"adamas_counters_read", function_without_struct(Kind::context,
                                                       [context](void* handle) {
                                                         adamas_counters host;
                                                         return adamas_counters_read(
                                                             context(handle), counters, &host, nullptr);
                                                       })},
      {"adamas_calibrate",
       function<adamas_calibrate_args>(Kind::context,
                                       [context](void* handle, adamas_calibrate_args* args) {
                                         return adamas_calibrate(context(handle), "", args);
                                       })},
      {"adamas_alloc", function_without_struct(Kind::context,
                                               [context](void* handle) {
                                                 void* memory = nullptr;
                                                 const auto status =
                                                     adamas_alloc(context(handle), 16, &memory);
                                                 if (status == ADAMAS_OK)
                                                   adamas_free(context(handle), memory);
                                                 return status;
                                               })},
      {"adamas_free",
       function_without_struct(Kind::context,
                               [context](void* handle) { return adamas_free(context(handle), nullptr); })},
      {"adamas_copy", function_without_struct(Kind::context,
                                              [context](void* handle) {
                                                return adamas_copy(context(handle), bytes, bytes + 8, 8,
                                                                   ADAMAS_HOST_TO_DEVICE, nullptr);
                                              })},
      {"adamas_synchronize",
       function_without_struct(
           Kind::context, [context](void* handle) { return adamas_synchronize(context(handle), nullptr); })},
  };
}

adamas_error_info last_error() {
  adamas_error_info info;
  REQUIRE(adamas_last_error(nullptr, &info) == ADAMAS_OK);
  return info;
}

/// A block whose first word is a struct_size, and 0xa5 elsewhere.
std::vector<std::max_align_t> block_of(std::size_t struct_size, std::size_t bytes) {
  std::vector<std::max_align_t> block(bytes / sizeof(std::max_align_t) + 1);
  std::memset(block.data(), 0xa5, block.size() * sizeof(std::max_align_t));
  std::memcpy(block.data(), &struct_size, sizeof struct_size);
  return block;
}

}  // namespace

TEST_CASE("every function of the ABI is in this test") {
  std::ifstream file(ADAMAS_ABI_SYMBOLS);
  std::set<std::string> promised, tested;
  for (std::string line; std::getline(file, line);)
    promised.insert(line);
  for (const auto& [name, unused] : functions())
    tested.insert(name);
  REQUIRE(promised.size() > 20);
  CHECK(promised == tested);
}

TEST_CASE("abi: null, foreign and destroyed handles") {
  const Handles handles;
  const Handles gone;
  gone.destroy();
  for (const auto& [name, function] : functions()) {
    if (function.kind == Kind::none) continue;
    INFO(name);
    void* const live[] = {handles.context, handles.kernel, handles.plan, handles.future};
    void* const destroyed[] = {gone.context, gone.kernel, gone.plan, gone.future};
    const auto own = static_cast<std::size_t>(function.kind) - 1;
    CHECK(function.with_handle(nullptr) == ADAMAS_INVALID_HANDLE);
    CHECK(contains(last_error().message, "must be a handle"));
    CHECK(function.with_handle(destroyed[own]) == ADAMAS_INVALID_HANDLE);
    for (std::size_t other = 0; other < 4; ++other) {
      if (other == own) continue;
      CHECK(function.with_handle(live[other]) == ADAMAS_INVALID_HANDLE);
      CHECK(contains(last_error().rule, "of another type"));
    }
    CHECK(function.with_handle(live[own]) != ADAMAS_INVALID_HANDLE);
  }
}

TEST_CASE("abi: destroying what is no handle, another's or gone does nothing") {
  const Handles handles;
  const auto foreign = [&](auto destroy, auto* null, std::vector<void*> others) {
    destroy(null);
    for (void* const other : others)
      destroy(static_cast<decltype(null)>(other));
  };
  foreign(adamas_context_destroy, static_cast<adamas_context*>(nullptr),
          {handles.kernel, handles.plan, handles.future});
  foreign(adamas_kernel_destroy, static_cast<adamas_kernel*>(nullptr),
          {handles.context, handles.plan, handles.future});
  foreign(adamas_plan_destroy, static_cast<adamas_plan*>(nullptr),
          {handles.context, handles.kernel, handles.future});
  foreign(adamas_future_destroy, static_cast<adamas_future*>(nullptr),
          {handles.context, handles.kernel, handles.plan});
  adamas_plan_info info;
  CHECK(adamas_plan_get_info(handles.plan, &info) == ADAMAS_OK);
  CHECK(adamas_synchronize(handles.context, nullptr) == ADAMAS_OK);
  handles.destroy();
  handles.destroy();
}

TEST_CASE("abi: null structs and sizes that no struct has") {
  const Handles handles;
  for (const auto& [name, function] : functions()) {
    if (!function.with_struct) continue;
    INFO(name);
    CHECK(function.with_struct(handles, nullptr) == ADAMAS_INVALID_ARGUMENT);
    for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{5000}, ~std::size_t{0}}) {
      INFO("struct_size ", size);
      auto block = block_of(size, function.struct_bytes);
      const auto before = block;
      CHECK(function.with_struct(handles, block.data()) == ADAMAS_INVALID_ARGUMENT);
      CHECK(contains(last_error().field, ".struct_size"));
      CHECK(std::memcmp(block.data(), before.data(), block.size() * sizeof block[0]) == 0);
    }
  }
}

TEST_CASE("abi: short structs are read and written as far as they go") {
  const Handles handles;
  for (const auto& [name, function] : functions()) {
    if (!function.with_struct) continue;
    for (std::size_t size = sizeof(std::size_t); size < function.struct_bytes; size += sizeof(std::size_t)) {
      if (!function.fills && size > sizeof(std::size_t)) break;  // fields that are read hold rubbish
      INFO(name, ", struct_size ", size);
      auto block = block_of(size, function.struct_bytes);
      const auto before = block;
      const adamas_status status = function.with_struct(handles, block.data());
      const auto* const now = reinterpret_cast<const char*>(block.data());
      const auto* const then = reinterpret_cast<const char*>(before.data());
      CHECK(std::memcmp(now + size, then + size, block.size() * sizeof block[0] - size) == 0);
      if (function.fills) {
        CHECK(status == ADAMAS_OK);
        std::size_t kept = 0;
        std::memcpy(&kept, now, sizeof kept);
        CHECK(kept == size);
        // An error_info's second word is a status and padding; all others are filled whole.
        if (size > sizeof(std::size_t)) CHECK(std::memcmp(now + 8, then + 8, size - 8) != 0);
      } else if (name == "adamas_context_create") {
        CHECK(status == ADAMAS_OK);  // every default
      } else {
        CHECK(status == ADAMAS_INVALID_ARGUMENT);  // nothing it needs is there
      }
    }
    // A later header's struct, whose further fields this library does not know.
    if (!function.fills) continue;
    INFO(name);
    auto block = block_of(function.struct_bytes + 64, function.struct_bytes + 64);
    const auto before = block;
    CHECK(function.with_struct(handles, block.data()) == ADAMAS_OK);
    const auto* const now = reinterpret_cast<const char*>(block.data()) + function.struct_bytes;
    CHECK(std::memcmp(now, reinterpret_cast<const char*>(before.data()) + function.struct_bytes, 64) == 0);
  }
}

TEST_CASE("abi: the version of the library is that of its header and of VERSION") {
  std::ifstream file(ADAMAS_VERSION_FILE);
  std::string version;
  std::getline(file, version);
  CHECK(version == adamas_version());
  CHECK(std::to_string(ADAMAS_VERSION_MAJOR) + "." + std::to_string(ADAMAS_VERSION_MINOR) + "." +
            std::to_string(ADAMAS_VERSION_PATCH) ==
        version);
}

TEST_CASE("abi: every status has a name of its own") {
  std::set<std::string> names;
  for (int status = ADAMAS_OK; status <= ADAMAS_INTERNAL; ++status)
    names.insert(adamas_status_name(static_cast<adamas_status>(status)));
  CHECK(names.size() == ADAMAS_INTERNAL + 1);
  CHECK(names.count("unknown") == 0);
}

}  // namespace adamas::tests
