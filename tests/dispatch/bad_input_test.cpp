// Bad input through the public interface: a typed error that names field, value, rule and way out, before
// anything is compiled, enqueued or written; and data that only the device sees, which is clamped or skipped
// and reported.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/dispatch/guarantees.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

constexpr Capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};

/// A context that could compile nothing without being noticed: its cache is its own.
Context fresh_context() { return Context(ContextOptions{.device = "cpu", .cache_dir = ""}); }

}  // namespace

TEST_CASE("cpu: a Spec that cannot be is refused before any compile") {
  const Context context = fresh_context();
  const struct {
    std::string spec;
    adamas_status status;
    std::string field, value, rule, hint;
  } cases[] = {
      {"buckets=3", ADAMAS_INVALID_SPEC, "buckets", "3", "must be 2, 4, 8 or 16", "nearest valid value: 4"},
      {"head_dim=128 hadamard=96", ADAMAS_INVALID_SPEC, "hadamard", "96", "must divide head_dim 128",
       "nearest valid value: 128"},
      {"head_dim=100", ADAMAS_INVALID_SPEC, "head_dim", "100", "must be 16..512, a multiple of 16",
       "nearest valid value: 96"},
      {"budget=0", ADAMAS_INVALID_SPEC, "budget", "0", "must be 1..4096", "nearest valid value: 1"},
      {"budget=8 sink=6 recent=4", ADAMAS_INVALID_SPEC, "budget", "8",
       "must hold the forced tokens, sink + recent = 6 + 4", "nearest valid value: 10"},
      {"bugdet=64", ADAMAS_INVALID_SPEC, "bugdet", "64", "is not a key of a Spec", "nearest key: budget"},
      {"budget=99999999999999999999999", ADAMAS_INVALID_SPEC, "budget", "99999999999999999999999",
       "must be 1..4096", "nearest valid value: 4096"},
      {"group=33", ADAMAS_INVALID_SPEC, "group", "33", "must be 1..32", "nearest valid value: 32"},
      {"lse=maybe", ADAMAS_INVALID_SPEC, "lse", "maybe", "must be on or off", "nearest valid value: on"},
      {"estimator=cosine", ADAMAS_INVALID_SPEC, "estimator", "cosine", "must be dot or manhattan",
       "nearest valid value: dot"},
      {"kv_type=q8_0 head_dim=80", ADAMAS_INVALID_SPEC, "head_dim", "80",
       "must be a multiple of 32: kv_type=q8_0 stores blocks", "nearest valid value: 64"},
      {"kv_type=q8_0 value_dim=16", ADAMAS_INVALID_SPEC, "value_dim", "16",
       "must be a multiple of 32: kv_type=q8_0 stores blocks", "nearest valid value: 32"},
  };
  for (const auto& [spec, status, field, value, rule, hint] : cases) {
    INFO(spec);
    for (const Refusal& refusal :
         {refusal_of([&, &text = spec] { context.prepare(text, kCapacity); }),
          refusal_of([&, &text = spec] { context.prepare_async(text, kCapacity); })}) {
      CHECK(refusal.status == status);
      CHECK(refusal.field == field);
      CHECK(refusal.value == value);
      CHECK(refusal.rule == rule);
      CHECK(contains(refusal.hint, hint));
      for (const std::string& part : {field, value, rule, hint})
        CHECK(contains(refusal.message, part));
    }
  }
  // No unit of the default Spec, or of any other, was compiled on the way.
  CHECK(context.prepare("", kCapacity).info().compiles == 3);
}

TEST_CASE("cpu: a Tuning that cannot be is refused") {
  const Context context = fresh_context();
  for (const std::string tuning : {"scan=warp", "chunk=0", "nonsense=1", "scan_tile=99999999999999999999"}) {
    const Refusal refusal = refusal_of([&] { context.prepare("", kCapacity, tuning); });
    INFO(tuning, ": ", refusal.message);
    CHECK((refusal.status == ADAMAS_INVALID_SPEC || refusal.status == ADAMAS_UNSUPPORTED));
    CHECK(refusal.field == tuning.substr(0, tuning.find('=')));
    CHECK(refusal.value == tuning.substr(tuning.find('=') + 1));
    CHECK_FALSE(refusal.hint.empty());
  }
}

TEST_CASE("a context that cannot be is refused") {
  int host = 0;
  const struct {
    ContextOptions options;
    adamas_status status;
    std::string field;
  } cases[] = {
      {{.device = "tpu"}, ADAMAS_INVALID_ARGUMENT, "device"},
      {{.device = "cpu:1"}, ADAMAS_INVALID_ARGUMENT, "device"},
      {{.device = "cuda:x"}, ADAMAS_INVALID_ARGUMENT, "device"},
      {{.device = "cuda:4096"}, ADAMAS_UNAVAILABLE, "device"},  // with or without a GPU
      {{.device = "cpu", .threads = -1}, ADAMAS_INVALID_ARGUMENT, "options.threads"},
      {{.device = "cpu", .threads = 1 << 30}, ADAMAS_INVALID_ARGUMENT, "threads"},
      {{.device = "cpu", .parallel_for_user = &host}, ADAMAS_INVALID_ARGUMENT, "options.parallel_for"},
  };
  for (const auto& [options, status, field] : cases) {
    const Refusal refusal = refusal_of([&, &given = options] { const Context context(given); });
    INFO(refusal.message);
    CHECK(refusal.status == status);
    CHECK(refusal.field == field);
    CHECK_FALSE(refusal.hint.empty());
  }
  adamas_context* context = nullptr;
  CHECK(adamas_context_create(nullptr, &context) == ADAMAS_INVALID_ARGUMENT);
  ContextOptions options{.device = "cpu"};
  CHECK(adamas_context_create(&options, nullptr) == ADAMAS_INVALID_ARGUMENT);
  options.struct_size = 3;
  CHECK(adamas_context_create(&options, &context) == ADAMAS_INVALID_ARGUMENT);
  CHECK(context == nullptr);
}

TEST_CASE("cpu: bad arguments of calls") { check_bad_call_arguments(Context("cpu")); }
TEST_CASE("cpu: bad arguments of encode, export and import") { check_bad_encode_arguments(Context("cpu")); }
TEST_CASE("cpu: bad capacities, batches and struct sizes") { check_bad_sizes(Context("cpu")); }
TEST_CASE("cpu: callers that were compiled against an older header") { check_old_callers(Context("cpu")); }

TEST_CASE("cpu: null and missing arguments are refused by every function") {
  const Context context("cpu");
  const Kernel kernel = context.prepare("", kCapacity);
  adamas_kernel* made = nullptr;
  CHECK(adamas_prepare(context.get(), "", nullptr, nullptr, &made) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_prepare(context.get(), "", nullptr, &kCapacity, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_kernel_get_info(kernel.get(), nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_context_get_info(context.get(), nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_last_error(context.get(), nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_plan_create(kernel.get(), nullptr, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_encode(kernel.get(), nullptr, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_calibrate(context.get(), "", nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_alloc(context.get(), 16, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_free(context.get(), nullptr) == ADAMAS_OK);
  CHECK(adamas_counters_clear(context.get(), nullptr, nullptr) == ADAMAS_INVALID_ARGUMENT);
  Counters host;
  alignas(16) char block[ADAMAS_COUNTERS_BYTES + 16] = {};
  CHECK(adamas_counters_clear(context.get(), block + 4, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_counters_read(context.get(), block + 4, &host, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_counters_read(context.get(), block, nullptr, nullptr) == ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_copy(context.get(), nullptr, block, 1, ADAMAS_HOST_TO_DEVICE, nullptr) ==
        ADAMAS_INVALID_ARGUMENT);
  CHECK(adamas_copy(context.get(), nullptr, nullptr, 0, ADAMAS_HOST_TO_DEVICE, nullptr) == ADAMAS_OK);
  const Refusal huge = refusal_of([&] { context.allocate<char>(std::size_t{1} << 60); });
  CHECK(huge.status == ADAMAS_OUT_OF_MEMORY);
}

TEST_CASE("cpu: calibration refuses samples that say nothing") {
  const Context context("cpu");
  std::vector<std::uint16_t> keys(2 * 64, 0x3c00);
  std::vector<float> key_thresholds(3, 7.0F), query_thresholds(3, 7.0F);
  const adamas_calibrate_args good{
      .keys = keys.data(), .key_count = 2, .kv_heads = 1, .key_thresholds = key_thresholds.data()};
  const auto refused = [&](auto change) {
    adamas_calibrate_args args = good;
    change(args);
    const Refusal refusal = refusal_of([&] { context.calibrate("head_dim=64", args); });
    CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
    return refusal.field;
  };
  CHECK(refused([](auto& args) { args.keys = nullptr; }) == "keys");
  CHECK(refused([](auto& args) { args.key_count = 0; }) == "keys");
  CHECK(refused([](auto& args) { args.kv_heads = 0; }) == "kv_heads");
  CHECK(refused([](auto& args) { args.key_thresholds = nullptr; }) == "key_thresholds");
  CHECK(refused([&](auto& args) { args.query_thresholds = query_thresholds.data(); }) == "queries");
  for (const std::string type : {"f8e4m3fn", "q8_0"}) {
    const Refusal refusal = refusal_of([&] { context.calibrate("head_dim=64 kv_type=" + type, good); });
    CHECK(refusal.status == ADAMAS_UNSUPPORTED);
    CHECK(refusal.field == "kv_type");
    CHECK(refusal.value == type);
  }
  keys[5] = 0x7c00;  // infinity
  CHECK(refused([](auto&) {}) == "keys");
  keys.assign(keys.size(), 0);
  CHECK(refused([](auto&) {}) == "keys");
  CHECK(key_thresholds == std::vector<float>(3, 7.0F));
  CHECK(query_thresholds == std::vector<float>(3, 7.0F));
}

TEST_CASE("cpu: null, destroyed and foreign handles") {
  adamas_context* context = nullptr;
  const ContextOptions options{.device = "cpu"};
  REQUIRE(adamas_context_create(&options, &context) == ADAMAS_OK);
  adamas_kernel* kernel = nullptr;
  REQUIRE(adamas_prepare(context, "", nullptr, &kCapacity, &kernel) == ADAMAS_OK);
  const PlanOptions plan_options{.batch = 1};
  adamas_plan* plan = nullptr;
  REQUIRE(adamas_plan_create(kernel, &plan_options, &plan) == ADAMAS_OK);
  adamas_future* future = nullptr;
  REQUIRE(adamas_prepare_async(context, "", nullptr, &kCapacity, &future) == ADAMAS_OK);

  const Call call;
  const EncodeArgs encode_args;
  const CodesArgs codes_args;
  adamas_error_info error;
  const auto refuses_all = [&](adamas_context* c, adamas_kernel* k, adamas_plan* p, adamas_future* f,
                               const std::string& rule) {
    adamas_kernel* no_kernel = nullptr;
    adamas_plan* no_plan = nullptr;
    adamas_future* no_future = nullptr;
    adamas_context_info context_info;
    adamas_kernel_info kernel_info;
    adamas_plan_info plan_info;
    const adamas_status all[] = {adamas_prepare(c, "", nullptr, &kCapacity, &no_kernel),
                                 adamas_prepare_async(c, "", nullptr, &kCapacity, &no_future),
                                 adamas_context_get_info(c, &context_info),
                                 adamas_synchronize(c, nullptr),
                                 adamas_kernel_get_info(k, &kernel_info),
                                 adamas_plan_create(k, &plan_options, &no_plan),
                                 adamas_encode(k, &encode_args, nullptr),
                                 adamas_codes_export(k, &codes_args, nullptr),
                                 adamas_codes_import(k, &codes_args, nullptr),
                                 adamas_plan_get_info(p, &plan_info),
                                 adamas_select(p, &call, nullptr),
                                 adamas_attend(p, &call, nullptr),
                                 adamas_decode(p, &call, nullptr),
                                 adamas_dense(p, &call, nullptr),
                                 adamas_future_wait(f, -1, &no_kernel)};
    for (const adamas_status status : all)
      CHECK(status == ADAMAS_INVALID_HANDLE);
    REQUIRE(adamas_last_error(nullptr, &error) == ADAMAS_OK);
    CHECK(error.status == ADAMAS_INVALID_HANDLE);
    CHECK(std::string(error.field) == "future");
    CHECK(contains(error.rule, rule));
    CHECK(no_kernel == nullptr);
    CHECK(no_plan == nullptr);
    CHECK(no_future == nullptr);
  };
  refuses_all(nullptr, nullptr, nullptr, nullptr, "must be a handle");
  // Each is of another type than asked for.
  refuses_all(reinterpret_cast<adamas_context*>(kernel), reinterpret_cast<adamas_kernel*>(plan),
              reinterpret_cast<adamas_plan*>(future), reinterpret_cast<adamas_future*>(context),
              "of another type");

  adamas_context_destroy(reinterpret_cast<adamas_context*>(plan));  // not one: nothing happens
  adamas_plan_info info;
  CHECK(adamas_plan_get_info(plan, &info) == ADAMAS_OK);

  adamas_future_destroy(future);
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
  refuses_all(context, kernel, plan, future, "destroyed");
  // A second destroy does nothing, and neither does that of no handle.
  adamas_future_destroy(future);
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
  adamas_future_destroy(nullptr);
  adamas_plan_destroy(nullptr);
  adamas_kernel_destroy(nullptr);
  adamas_context_destroy(nullptr);
}

namespace {

/// Runs in the child: 0 when everything behaves as promised, else the number of what did not.
int after_fork(adamas_context* context, adamas_kernel* kernel, adamas_plan* plan, adamas_future* future,
               const SmallProblem& problem) noexcept {
  const Call call = problem.call();
  const EncodeArgs encode_args = problem.encode_args();
  const PlanOptions plan_options{.batch = 1};
  adamas_kernel* no_kernel = nullptr;
  adamas_plan* no_plan = nullptr;
  void* no_memory = nullptr;
  if (adamas_prepare(context, "", nullptr, &kCapacity, &no_kernel) != ADAMAS_INVALID_HANDLE) return 1;
  adamas_error_info error;
  if (adamas_last_error(context, &error) != ADAMAS_OK) return 2;
  if (std::string(error.field) != "context" || !contains(error.rule, "fork")) return 3;
  if (std::string(error.hint).empty()) return 4;
  if (adamas_plan_create(kernel, &plan_options, &no_plan) != ADAMAS_INVALID_HANDLE) return 5;
  if (adamas_encode(kernel, &encode_args, nullptr) != ADAMAS_INVALID_HANDLE) return 6;
  if (adamas_decode(plan, &call, nullptr) != ADAMAS_INVALID_HANDLE) return 7;
  if (adamas_alloc(context, 16, &no_memory) != ADAMAS_INVALID_HANDLE) return 8;
  if (adamas_future_wait(future, 0, &no_kernel) != ADAMAS_INVALID_HANDLE) return 9;
  const auto* const out = problem.out.as<unsigned char>();  // not through the context: it is the parent's too
  if (!std::all_of(out, out + problem.out.size(), [](unsigned char byte) { return byte == 0xff; })) return 10;
  // Destroying what the parent made must not wait for threads that this process does not have.
  adamas_future_destroy(future);
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
  // The way out that the hint names.
  try {
    const Context mine("cpu");
    const SmallProblem own(mine, {});
    own.encode();
    own.decode();
  } catch (const std::exception&) {
    return 11;
  }
  return 0;
}

}  // namespace

// ThreadSanitizer's runtime forgets the parent's threads in a child and stops there when one of them is
// joined.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ADAMAS_THREAD_SANITIZER 1
#endif
#endif
#ifdef ADAMAS_THREAD_SANITIZER
constexpr bool kChildrenJoin = false;
#else
constexpr bool kChildrenJoin = true;
#endif

TEST_CASE("cpu: a context that was carried across fork" * doctest::skip(!kChildrenJoin)) {
  const Context other("cpu");
  const SmallProblem problem(other, {});
  adamas_context* context = nullptr;
  const ContextOptions options{.device = "cpu", .cache_dir = "", .threads = 2};
  REQUIRE(adamas_context_create(&options, &context) == ADAMAS_OK);
  adamas_kernel* kernel = nullptr;
  REQUIRE(adamas_prepare(context, "", nullptr, &kCapacity, &kernel) == ADAMAS_OK);
  const PlanOptions plan_options{.batch = 1};
  adamas_plan* plan = nullptr;
  REQUIRE(adamas_plan_create(kernel, &plan_options, &plan) == ADAMAS_OK);
  adamas_future* future = nullptr;  // its thread is still compiling when the child starts
  REQUIRE(adamas_prepare_async(context, "budget=77", nullptr, &kCapacity, &future) == ADAMAS_OK);

  problem.poison_outputs();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60);  // a hang ends as a signal, which the parent sees
    _exit(after_fork(context, kernel, plan, future, problem));
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);

  // The parent's are as they were.
  adamas_kernel* prepared = nullptr;
  CHECK(adamas_future_wait(future, -1, &prepared) == ADAMAS_OK);
  adamas_kernel_destroy(prepared);
  adamas_future_destroy(future);
  adamas_plan_destroy(plan);
  adamas_kernel_destroy(kernel);
  adamas_context_destroy(context);
}

TEST_CASE("cpu: padded and empty rows are inert") { check_inert_rows(Context("cpu")); }
TEST_CASE("cpu: lengths outside the capacity") { check_wild_lengths(Context("cpu")); }
TEST_CASE("cpu: tables and starts that hold anything") { check_wild_tables(Context("cpu")); }
TEST_CASE("cpu: slots outside the cache") { check_wild_slots(Context("cpu")); }
TEST_CASE("cpu: positions that a row does not see") { check_wild_positions(Context("cpu")); }
TEST_CASE("cpu: row budgets of any value") { check_wild_budgets(Context("cpu")); }
TEST_CASE("cpu: NaN and infinity in keys, queries and thresholds") { check_wild_numbers(Context("cpu")); }

}  // namespace adamas::tests
