// Whether prepare may compile: allow, deny, background; what a dense kernel does and how it is refreshed.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

constexpr Capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};
const std::string kSpec = "head_dim=64 budget=16";

Context context_with(std::int32_t policy, const char* cache_dir = "") {
  return Context(ContextOptions{.device = "cpu", .cache_dir = cache_dir, .threads = 1, .compile = policy});
}

Kernel refreshed(const Kernel& kernel) {
  for (;;) {
    if (std::optional<Kernel> complete = kernel.refresh()) return std::move(*complete);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

TEST_CASE("cpu: deny fails with the Spec and the command that provides it, and compiles nothing") {
  const ScratchFolder folder;
  const std::string cache_dir = folder / "cache";
  const Context context = context_with(ADAMAS_COMPILE_DENY, cache_dir.c_str());
  CHECK(context.info().compile == ADAMAS_COMPILE_DENY);
  const Refusal refusal = refusal_of([&] { context.prepare(kSpec, kCapacity); });
  CHECK(refusal.status == ADAMAS_UNAVAILABLE);
  CHECK(contains(refusal.message, "head_dim=64 value_dim=64"));  // canonical: every key
  CHECK(contains(refusal.message, "encode, select, attend of"));
  CHECK(contains(refusal.hint, "adamas precompile --spec \"head_dim=64"));
  CHECK(contains(refusal.hint, std::string("--targets \"") + context.info().target + "\""));
  CHECK_FALSE(contains(refusal.hint, "--tuning"));
  CHECK(contains(refusal_of([&] { context.prepare(kSpec, kCapacity, "chunk=16"); }).hint, "chunk=16"));
  CHECK(context.cache_counters().compiles == 0);
  CHECK(files_below(folder.path()).empty());

  // What another context compiled is found.
  const int compiles = context_with(ADAMAS_COMPILE_ALLOW, cache_dir.c_str()).prepare(kSpec, kCapacity).info().compiles;
  CHECK(compiles == 3);
  CHECK(context.prepare(kSpec, kCapacity).info().compiles == 0);
  CHECK(context.cache_counters().hits_folder == 3);
}

TEST_CASE("the policy comes from the environment where the host leaves it open") {
  const Environment variable("ADAMAS_COMPILE", "deny");
  CHECK(context_with(ADAMAS_COMPILE_DEFAULT).info().compile == ADAMAS_COMPILE_DENY);
  CHECK(context_with(ADAMAS_COMPILE_ALLOW).info().compile == ADAMAS_COMPILE_ALLOW);
  const Environment nonsense("ADAMAS_COMPILE", "sometimes");
  const Refusal refusal = refusal_of([] { context_with(ADAMAS_COMPILE_DEFAULT); });
  CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
  CHECK(refusal.field == "ADAMAS_COMPILE");
  CHECK(refusal.value == "sometimes");
  const Environment unset("ADAMAS_COMPILE", std::nullopt);
  CHECK(context_with(ADAMAS_COMPILE_DEFAULT).info().compile == ADAMAS_COMPILE_ALLOW);
  CHECK(refusal_of([] { context_with(4); }).field == "options.compile");
}

TEST_CASE("cpu: background hands out a dense kernel at once and the complete one on refresh") {
  const Context context = context_with(ADAMAS_COMPILE_BACKGROUND);
  const SmallProblem problem(context, {});
  CHECK(problem.kernel.info().compiles == 1);  // of three: the dense one
  CHECK(problem.kernel.info().state != ADAMAS_KERNEL_COMPLETE);
  CHECK(context.cache_counters().fallbacks == 1);

  // Decode answers as dense does, and says so.
  Call call = problem.call();
  call.positions = call.counts = nullptr;
  const Attended decoded = problem.attend_with(&Plan::decode, call), dense = problem.dense();
  CHECK(decoded.out == dense.out);
  CHECK(decoded.lse == dense.lse);
  CHECK(decoded.counters.dense_background > 0);
  CHECK(decoded.counters.dense_requested == 0);
  CHECK(decoded.counters.tokens_scanned == 0);

  // What it cannot do it refuses, and writes nothing.
  problem.poison_outputs();
  const std::vector<std::byte> unwritten(problem.codes.size(), std::byte{0xff});
  problem.codes.write(unwritten.data(), unwritten.size());
  CHECK(refusal_of([&] { problem.kernel.encode(problem.encode_args()); }).status == ADAMAS_UNAVAILABLE);
  const Refusal select = refusal_of([&] { problem.plan.select(problem.call()); });
  CHECK(select.status == ADAMAS_UNAVAILABLE);
  CHECK(contains(select.hint, "refresh"));
  CHECK(refusal_of([&] { problem.plan.decode(problem.call()); }).field == "positions");
  Call appending = call;
  appending.append_slots = problem.lengths.as<std::int32_t>();
  appending.key_thresholds = problem.key_thresholds.as<float>();
  CHECK(refusal_of([&] { problem.plan.decode(appending); }).status == ADAMAS_UNAVAILABLE);
  CHECK(problem.outputs_are_poison());

  // It never swaps by itself: however long one waits, the old kernel stays dense.
  const Kernel complete = refreshed(problem.kernel);
  CHECK(problem.kernel.info().state == ADAMAS_KERNEL_DENSE_REFRESHABLE);
  CHECK(problem.attend_with(&Plan::decode, call).counters.dense_background > 0);
  CHECK(complete.info().state == ADAMAS_KERNEL_COMPLETE);
  CHECK(complete.info().compiles == 0);  // refresh loads, the thread has compiled
  CHECK(context.cache_counters().compiles == 3);

  complete.encode(problem.encode_args());
  const Plan plan = complete.plan({.batch = problem.batch(), .dense_below = 0});
  CHECK(plan.info().workspace_bytes <= problem.plan.info().workspace_bytes);
  context.clear(problem.counters.data());
  plan.decode(call);
  const Counters counted = context.read(problem.counters.data());
  CHECK(counted.tokens_scanned > 0);
  CHECK(counted.dense_background == 0);

  // As a context would have given it that compiles at once.
  const Context allowing = context_with(ADAMAS_COMPILE_ALLOW);
  const SmallProblem at_once(allowing, {});
  at_once.encode();
  CHECK(problem.out.read<std::uint16_t>() == at_once.decode().out);

  // Whoever prepares it next gets it whole; a complete kernel refreshes to itself.
  CHECK(context.prepare(problem.shape.spec, kCapacity).info().state == ADAMAS_KERNEL_COMPLETE);
  CHECK(complete.refresh()->info().state == ADAMAS_KERNEL_COMPLETE);
  CHECK(context.cache_counters().fallbacks == 1);
}

TEST_CASE("cpu: a background compile that fails is told by state and refresh, and the dense kernel goes on") {
  const ScratchFolder folder;
  const std::string cache_dir = folder / "cache";
  {
    // The dense unit alone: its entry is kept, the others are removed.
    const Context context = context_with(ADAMAS_COMPILE_ALLOW, cache_dir.c_str());
    context.prepare(kSpec, kCapacity);
    runtime::Cache cache(cache_dir, {});
    for (const runtime::CacheListing& entry : cache.list())
      if (entry.unit != "attend") fs::remove(entry.path);
  }
  const Environment no_compiler("ADAMAS_CC", "/nowhere/adamas-cc");
  const Context context = context_with(ADAMAS_COMPILE_BACKGROUND, cache_dir.c_str());
  const Kernel kernel = context.prepare(kSpec, kCapacity);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (kernel.info().state == ADAMAS_KERNEL_DENSE && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  CHECK(kernel.info().state == ADAMAS_KERNEL_DENSE_FAILED);
  const Refusal refusal = refusal_of([&] { kernel.refresh(); });
  CHECK(refusal.status == ADAMAS_UNAVAILABLE);
  CHECK(contains(refusal.message, "adamas-cc"));
}

TEST_CASE("cpu: a context may go while its thread compiles") {
  for (int i = 0; i < 3; ++i) {
    const Context context = context_with(ADAMAS_COMPILE_BACKGROUND);
    const Kernel kernel = context.prepare("head_dim=16 budget=4", kCapacity);
    CHECK(kernel.info().state != ADAMAS_KERNEL_COMPLETE);
  }
}

TEST_CASE("cpu: a child after fork may let go of a context whose thread compiles") {
  adamas_context* context = nullptr;
  const ContextOptions options{.device = "cpu", .cache_dir = "", .threads = 1, .compile = ADAMAS_COMPILE_BACKGROUND};
  REQUIRE(adamas_context_create(&options, &context) == ADAMAS_OK);
  adamas_kernel* kernel = nullptr;
  REQUIRE(adamas_prepare(context, "head_dim=16 budget=4", nullptr, &kCapacity, &kernel) == ADAMAS_OK);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // if it waits for a thread that does not exist
    adamas_kernel_destroy(kernel);
    adamas_context_destroy(context);
    ::_exit(7);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 7);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
}

TEST_CASE("refresh and the cache's counters check what they are given") {
  const Context context = context_with(ADAMAS_COMPILE_BACKGROUND);
  const Kernel kernel = context.prepare("head_dim=16 budget=4", kCapacity);
  adamas_kernel* out = nullptr;
  CHECK(adamas_refresh(nullptr, nullptr, &out) == ADAMAS_INVALID_HANDLE);
  CHECK(adamas_refresh(reinterpret_cast<const adamas_kernel*>(context.get()), nullptr, &out) ==
        ADAMAS_INVALID_HANDLE);
  CHECK(adamas_refresh(kernel.get(), nullptr, nullptr) == ADAMAS_INVALID_ARGUMENT);

  CHECK(adamas_cache_get_counters(context.get(), nullptr) == ADAMAS_INVALID_ARGUMENT);
  adamas_cache_counters counters{};
  CHECK(adamas_cache_get_counters(nullptr, &counters) == ADAMAS_INVALID_HANDLE);
  CHECK(adamas_cache_get_counters(reinterpret_cast<const adamas_context*>(kernel.get()), &counters) ==
        ADAMAS_INVALID_HANDLE);
  counters.struct_size = 3;
  CHECK(adamas_cache_get_counters(context.get(), &counters) == ADAMAS_INVALID_ARGUMENT);
  counters.struct_size = offsetof(adamas_cache_counters, hits_pack);
  counters.hits_pack = 12345;
  CHECK(adamas_cache_get_counters(context.get(), &counters) == ADAMAS_OK);
  CHECK(counters.compiles >= 1);
  CHECK(counters.hits_pack == 12345);

  // A host compiled against a header without packs and policy: what lies behind its struct is not read.
  ContextOptions old{.device = "cpu", .cache_dir = ""};
  old.struct_size = offsetof(adamas_context_options, packs);
  old.packs = reinterpret_cast<const char*>(1);
  old.compile = 77;
  CHECK(Context(old).info().compile == ADAMAS_COMPILE_ALLOW);
  adamas_context_info info{};
  info.struct_size = offsetof(adamas_context_info, compile);
  info.compile = 55;
  CHECK(adamas_context_get_info(context.get(), &info) == ADAMAS_OK);
  CHECK(info.compile == 55);
}

}  // namespace adamas::tests
