// What the library promises beyond right numbers, on the CPU: results that depend on nothing but their own
// row, exact counters, one compile for all who ask, lifetimes and error memory.
#include "tests/dispatch/guarantees.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"
#include "tests/oracle/oracle.hpp"

namespace adamas::tests {
namespace {

constexpr Capacity kCapacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 64};
constexpr int kUnits = 3;

ContextOptions in_memory() { return {.device = "cpu", .cache_dir = ""}; }

/// A folder that is gone when the test is.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "adamas-test-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("cpu: a row's bits depend on nothing but itself") { check_rows_are_independent(Context("cpu")); }
TEST_CASE("cpu: counters are exact") { check_counters(Context("cpu")); }
TEST_CASE("cpu: decode encodes the rows' own tokens first") { check_appending(Context("cpu")); }
TEST_CASE("cpu: codes survive export and import between layouts") { check_codes_travel(Context("cpu")); }

TEST_CASE("cpu: bits do not depend on the number of threads") {
  const SmallShape shape{.spec = "head_dim=64 group=4 budget=200",
                         .sequences = {{1, 1500}, {2, 3}, {3, 640}},
                         .dense_below = 30};
  std::optional<Attended> decoded, dense;
  for (const int threads : {1, 2, 3}) {
    INFO(threads, " threads");
    const Context context(ContextOptions{.device = "cpu", .threads = threads});
    const SmallProblem problem(context, shape);
    problem.encode();
    const Attended now = problem.decode(), now_dense = problem.dense();
    if (!decoded) decoded = now, dense = now_dense;
    CHECK(now.out == decoded->out);
    CHECK(now.lse == decoded->lse);
    CHECK(now_dense.out == dense->out);
    CHECK(now_dense.lse == dense->lse);
  }
}

TEST_CASE("cpu: bits of a dense row do not depend on how many K/V heads a work item takes") {
  const Context context("cpu");
  const auto dense = [&](int copies, std::int64_t capacity) {
    const SmallProblem problem(context, {.spec = "head_dim=64 group=3 budget=16",
                                         .sequences = std::vector<Sequence>(copies, {1, 500}),
                                         .kv_heads = 11,
                                         .max_tokens = capacity,
                                         .tuning = "dense_chunk=64"});
    const Attended all = problem.dense();
    for (int b = 0; b < copies; ++b)
      CHECK(part(all.out, b, problem.out_per_sequence()) == part(all.out, 0, problem.out_per_sequence()));
    return part(all.out, 0, problem.out_per_sequence());
  };
  // 8 chunks x 11 heads: blocks of 2 heads alone, of 8 and 3 in a batch.
  const auto alone = dense(1, 500);
  CHECK(dense(5, 500) == alone);
  CHECK(dense(1, 3000) == alone);
}

TEST_CASE("cpu: prepare_async answers, can be left alone, and can be waited for") {
  const Context context(in_memory());
  {
    const Future future = context.prepare_async("head_dim=64", kCapacity);
    CHECK_FALSE(future.wait(0).has_value());  // a compiler process takes longer than this
    const Kernel first = future.get(), second = future.get();
    CHECK(first.info().compiles == kUnits);
    CHECK(second.get() != first.get());
    const auto waited = future.wait(0);
    REQUIRE(waited.has_value());
    CHECK(std::string(waited->info().spec) == first.info().spec);
  }
  {
    const Future dropped = context.prepare_async("head_dim=80", kCapacity);
  }
  // The dropped one's destructor waited, so that its kernels are here.
  CHECK(context.prepare("head_dim=80", kCapacity).info().compiles == 0);

  adamas_future* future = nullptr;
  REQUIRE(adamas_prepare_async(context.get(), "head_dim=96", nullptr, &kCapacity, &future) == ADAMAS_OK);
  adamas_kernel* kernel = nullptr;
  CHECK(adamas_future_wait(future, 0, &kernel) == ADAMAS_TIMEOUT);
  CHECK(kernel == nullptr);
  adamas_error_info error;
  REQUIRE(adamas_last_error(context.get(), &error) == ADAMAS_OK);
  CHECK(error.status == ADAMAS_TIMEOUT);
  CHECK(adamas_future_wait(future, -1, &kernel) == ADAMAS_OK);
  adamas_future_destroy(future);
  adamas_kernel_info info;
  CHECK(adamas_kernel_get_info(kernel, &info) == ADAMAS_OK);  // outlives its future
  CHECK(info.compiles == kUnits);
  adamas_kernel_destroy(kernel);
}

TEST_CASE("cpu: a Spec is compiled once, however many ask for it") {
  SUBCASE("threads of one context") {
    const Context context(in_memory());
    std::atomic<int> compiles = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back(
          [&] { compiles += context.prepare("head_dim=64 budget=48", kCapacity).info().compiles; });
    }
    for (std::thread& thread : threads)
      thread.join();
    CHECK(compiles == kUnits);
  }
  SUBCASE("contexts on one folder") {
    const TemporaryFolder folder;
    const ContextOptions options{.device = "cpu", .cache_dir = folder.path()};
    {
      const Context first(options);
      CHECK(std::string(first.info().cache_dir) == folder.path());
      CHECK(first.prepare("head_dim=64 budget=48", kCapacity).info().compiles == kUnits);
      // Capacities are no part of a kernel.
      const Kernel larger =
          first.prepare("head_dim=64 budget=48", {.max_batch = 3, .kv_heads = 5, .max_tokens = 999});
      CHECK(larger.info().compiles == 0);
      CHECK(larger.info().compile_ms == 0);
    }
    const Context second(options);
    CHECK(second.prepare("head_dim=64 budget=48", kCapacity).info().compiles == 0);
    CHECK(second.prepare("budget=48 head_dim=64 group=1", kCapacity).info().compiles ==
          0);  // the same, said otherwise
    CHECK(second.prepare("head_dim=64 budget=49", kCapacity).info().compiles > 0);
  }
}

TEST_CASE("cpu: kernels and plans outlive the handles they came from") {
  adamas_context* context = nullptr;
  const ContextOptions options{.device = "cpu"};
  REQUIRE(adamas_context_create(&options, &context) == ADAMAS_OK);
  // Data of a context that stays, calls of one that goes.
  const Context other("cpu");
  const SmallProblem problem(other, {});
  problem.encode();
  const Attended want = problem.decode();
  const Capacity capacity{
      .max_batch = problem.batch(), .kv_heads = problem.shape.kv_heads, .max_tokens = problem.max_tokens};
  adamas_kernel* kernel = nullptr;
  REQUIRE(adamas_prepare(context, problem.shape.spec.c_str(), nullptr, &capacity, &kernel) == ADAMAS_OK);
  adamas_context_destroy(context);

  const PlanOptions plan_options{.batch = problem.batch(), .dense_below = 0};
  adamas_plan* plan = nullptr;
  REQUIRE(adamas_plan_create(kernel, &plan_options, &plan) == ADAMAS_OK);
  const EncodeArgs encode_args = problem.encode_args();
  CHECK(adamas_encode(kernel, &encode_args, nullptr) == ADAMAS_OK);
  adamas_kernel_destroy(kernel);
  problem.poison_outputs();
  Call call = problem.call();
  CHECK(adamas_decode(plan, &call, nullptr) == ADAMAS_OK);
  CHECK(problem.out.read<std::uint16_t>() == want.out);
  call.query = nullptr;
  CHECK(adamas_decode(plan, &call, nullptr) == ADAMAS_INVALID_ARGUMENT);
  adamas_error_info error;
  REQUIRE(adamas_last_error(nullptr, &error) == ADAMAS_OK);
  CHECK(std::string(error.field) == "query");
  adamas_plan_destroy(plan);
}

TEST_CASE("cpu: errors are remembered by context and thread") {
  const Context first("cpu"), second("cpu");
  const auto last_field = [](const adamas_context* context) {
    adamas_error_info error;
    REQUIRE(adamas_last_error(context, &error) == ADAMAS_OK);
    return error.status == ADAMAS_OK ? std::string("none") : std::string(error.field);
  };
  CHECK(last_field(first.get()) == "none");
  CHECK(refusal_of([&] { first.prepare("buckets=3", kCapacity); }).field == "buckets");
  CHECK(refusal_of([&] { second.prepare("budget=0", kCapacity); }).field == "budget");
  CHECK(last_field(first.get()) == "buckets");
  CHECK(last_field(second.get()) == "budget");
  CHECK(last_field(nullptr) == "budget");
  // What a kernel refuses is its context's.
  const Kernel kernel = first.prepare("", kCapacity);
  CHECK(refusal_of([&] { kernel.plan({.batch = 7}); }).field == "plan.batch");
  CHECK(last_field(first.get()) == "plan.batch");
  CHECK(last_field(second.get()) == "budget");
  std::thread([&] {
    CHECK(last_field(first.get()) == "none");
    CHECK(last_field(nullptr) == "none");
    CHECK(refusal_of([&] { first.prepare("group=0", kCapacity); }).field == "group");
    CHECK(last_field(first.get()) == "group");
  }).join();
  CHECK(last_field(first.get()) == "plan.batch");
}

TEST_CASE("cpu: calibration is the oracle's") {
  const Context context("cpu");
  for (const int buckets : {2, 4, 8, 16}) {
    INFO(buckets, " buckets");
    oracle::Config config{.head_dim = 80, .value_dim = 80, .hadamard = 80, .buckets = buckets, .group = 3};
    config.estimator = oracle::Estimator::kManhattan;
    oracle::Random random(static_cast<std::uint64_t>(buckets));
    constexpr int kHeads = 2, kKeys = 50, kQueries = 20;
    const auto keys =
        oracle::random_rows(random, oracle::RowKind::kNormal, kKeys * kHeads, 80, oracle::Format::kF16);
    const auto queries = oracle::random_rows(random, oracle::RowKind::kNormal, kQueries * kHeads * 3, 80,
                                             oracle::Format::kF16);
    const auto want = oracle::calibrate(config, {keys, kHeads, 80}, {queries, kHeads * 3, 80});
    const auto key_bits = oracle::pack16(oracle::Format::kF16, keys);
    const auto query_bits = oracle::pack16(oracle::Format::kF16, queries);
    std::vector<float> key_thresholds(want.key.size()), query_thresholds(want.query.size());
    context.calibrate("head_dim=80 group=3 estimator=manhattan buckets=" + std::to_string(buckets),
                      {.keys = key_bits.data(),
                       .queries = query_bits.data(),
                       .key_count = kKeys,
                       .query_count = kQueries,
                       .kv_heads = kHeads,
                       .key_thresholds = key_thresholds.data(),
                       .query_thresholds = query_thresholds.data()});
    for (std::size_t i = 0; i < want.key.size(); ++i) {
      CHECK(std::abs(key_thresholds[i] - want.key[i]) <= 1e-6F * std::max(1.0F, std::abs(want.key[i])));
      CHECK(std::abs(query_thresholds[i] - want.query[i]) <= 1e-6F * std::max(1.0F, std::abs(want.query[i])));
    }
  }
}

}  // namespace adamas::tests
