// The guarantees and the answers to bad input on the GPU, and captured graphs: what a replay does follows
// from device memory alone, and is counted.
#include <cuda.h>
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/compile/nvrtc_compiler.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "tests/dispatch/guarantees.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

using runtime::check_cuda;
using runtime::cuda_driver;

// What only hosts need of the driver; the library itself neither makes streams nor captures.
#define ADAMAS_TEST_DRIVER_SYMBOLS(X) \
  X(cuStreamCreate)                   \
  X(cuStreamDestroy_v2)               \
  X(cuStreamBeginCapture_v2)          \
  X(cuStreamEndCapture)               \
  X(cuGraphInstantiateWithFlags)      \
  X(cuGraphLaunch)                    \
  X(cuGraphExecDestroy)               \
  X(cuGraphDestroy)

struct HostDriver {
#define ADAMAS_DECLARE(symbol) decltype(&::symbol) symbol = nullptr;
  ADAMAS_TEST_DRIVER_SYMBOLS(ADAMAS_DECLARE)
#undef ADAMAS_DECLARE

  HostDriver() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) throw std::runtime_error("libcuda.so.1 is missing");
#define ADAMAS_RESOLVE(symbol)                                          \
  symbol = reinterpret_cast<decltype(symbol)>(dlsym(library, #symbol)); \
  if (symbol == nullptr) throw std::runtime_error(#symbol " is not in libcuda.so.1");
    ADAMAS_TEST_DRIVER_SYMBOLS(ADAMAS_RESOLVE)
#undef ADAMAS_RESOLVE
  }
};

/// A host's own stream in the primary context, which is current while this lives.
class HostStream {
 public:
  HostStream() {
    check_cuda(cuda_driver().cuDeviceGet(&device_, 0), "cuDeviceGet");
    CUcontext context = nullptr;
    check_cuda(cuda_driver().cuDevicePrimaryCtxRetain(&context, device_), "cuDevicePrimaryCtxRetain");
    check_cuda(cuda_driver().cuCtxPushCurrent_v2(context), "cuCtxPushCurrent");
    check_cuda(driver.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  }
  ~HostStream() {
    driver.cuStreamDestroy_v2(stream_);
    CUcontext context = nullptr;
    cuda_driver().cuCtxPopCurrent_v2(&context);
    cuda_driver().cuDevicePrimaryCtxRelease_v2(device_);
  }
  HostStream(const HostStream&) = delete;
  HostStream& operator=(const HostStream&) = delete;
  CUstream get() const { return stream_; }

  const HostDriver driver;

 private:
  CUdevice device_ = 0;
  CUstream stream_ = nullptr;
};

/// A captured sequence of calls.
class Graph {
 public:
  template <class F>
  Graph(const HostStream& stream, F&& enqueue) : stream_(stream) {
    const HostDriver& driver = stream_.driver;
    // The strictest mode: any call of this process that could synchronise ends the capture.
    check_cuda(driver.cuStreamBeginCapture_v2(stream_.get(), CU_STREAM_CAPTURE_MODE_GLOBAL),
               "cuStreamBeginCapture");
    enqueue(stream_.get());
    check_cuda(driver.cuStreamEndCapture(stream_.get(), &graph_), "cuStreamEndCapture");
    check_cuda(driver.cuGraphInstantiateWithFlags(&executable_, graph_, 0), "cuGraphInstantiate");
  }
  ~Graph() {
    stream_.driver.cuGraphExecDestroy(executable_);
    stream_.driver.cuGraphDestroy(graph_);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void replay() const {
    check_cuda(stream_.driver.cuGraphLaunch(executable_, stream_.get()), "cuGraphLaunch");
    check_cuda(cuda_driver().cuStreamSynchronize(stream_.get()), "cuStreamSynchronize");
  }

 private:
  const HostStream& stream_;
  CUgraph graph_ = nullptr;
  CUgraphExec executable_ = nullptr;
};

// Lets the next kernel start at once, and copies long after that one could have read what was there before.
constexpr const char* kLateCopy = R"(
extern "C" __global__ void late_copy(unsigned char* to, const unsigned char* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
  for (int i = 0; i < 200; ++i) __nanosleep(1000);
  for (int i = threadIdx.x; i < bytes; i += blockDim.x) to[i] = from[i];
}
)";

class LateCopy {
 public:
  LateCopy() {
    int major = 0, minor = 0;
    check_cuda(cuda_driver().cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0),
               "cuDeviceGetAttribute");
    check_cuda(cuda_driver().cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0),
               "cuDeviceGetAttribute");
    const auto binary = runtime::nvrtc_compiler()
                            ->compile({.name = "late_copy.cu",
                                       .source = kLateCopy,
                                       .target = "sm_" + std::to_string(10 * major + minor),
                                       .options = {},
                                       .spec_text = "none"})
                            .binary;
    check_cuda(
        cuda_driver().cuLibraryLoadData(&library_, binary.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "cuLibraryLoadData");
    check_cuda(cuda_driver().cuLibraryGetKernel(&kernel_, library_, "late_copy"), "cuLibraryGetKernel");
  }
  ~LateCopy() { cuda_driver().cuLibraryUnload(library_); }
  LateCopy(const LateCopy&) = delete;
  LateCopy& operator=(const LateCopy&) = delete;

  void enqueue(void* to, const void* from, std::size_t bytes, CUstream stream) const {
    int count = static_cast<int>(bytes);
    void* arguments[] = {&to, &from, &count};
    check_cuda(cuda_driver().cuLaunchKernel(reinterpret_cast<CUfunction>(kernel_), 1, 1, 1, 128, 1, 1, 0,
                                            stream, arguments, nullptr),
               "cuLaunchKernel");
  }

 private:
  CUlibrary library_ = nullptr;
  CUkernel kernel_ = nullptr;
};

}  // namespace

TEST_CASE("cuda: bad arguments of calls") { check_bad_call_arguments(Context("cuda:0")); }
TEST_CASE("cuda: bad arguments of encode, export and import") {
  check_bad_encode_arguments(Context("cuda:0"));
}
TEST_CASE("cuda: bad capacities, batches and struct sizes") { check_bad_sizes(Context("cuda:0")); }
TEST_CASE("cuda: callers that were compiled against an older header") {
  check_old_callers(Context("cuda:0"));
}
TEST_CASE("cuda: padded and empty rows are inert") { check_inert_rows(Context("cuda:0")); }
TEST_CASE("cuda: lengths outside the capacity") { check_wild_lengths(Context("cuda:0")); }
TEST_CASE("cuda: tables and starts that hold anything") { check_wild_tables(Context("cuda:0")); }
TEST_CASE("cuda: slots outside the cache") { check_wild_slots(Context("cuda:0")); }
TEST_CASE("cuda: positions that a row does not see") { check_wild_positions(Context("cuda:0")); }
TEST_CASE("cuda: row budgets of any value") { check_wild_budgets(Context("cuda:0")); }
TEST_CASE("cuda: NaN and infinity in keys, queries and thresholds") { check_wild_numbers(Context("cuda:0")); }
TEST_CASE("cuda: a row's bits depend on nothing but itself") {
  check_rows_are_independent(Context("cuda:0"));
}
TEST_CASE("cuda: counters are exact") { check_counters(Context("cuda:0")); }
TEST_CASE("cuda: decode encodes the rows' own tokens first") { check_appending(Context("cuda:0")); }
TEST_CASE("cuda: codes survive export and import between layouts") { check_codes_travel(Context("cuda:0")); }

TEST_CASE("cuda: what CUDA cannot generate is refused by name") {
  const Context context("cuda:0");
  for (const std::string spec : {"kv_type=f32", "kv_type=q8_0"}) {
    const Refusal refusal =
        refusal_of([&] { context.prepare(spec, {.max_batch = 1, .kv_heads = 1, .max_tokens = 64}); });
    INFO(spec, ": ", refusal.message);
    CHECK(refusal.status == ADAMAS_UNSUPPORTED);
    CHECK(refusal.field + "=" + refusal.value == spec);
    CHECK_FALSE(refusal.hint.empty());
  }
}

TEST_CASE("cuda: strides that are no multiple of 16 bytes are refused") {
  const Context context("cuda:0");
  const SmallProblem problem(context, {});
  problem.poison_outputs();
  Call call = problem.call();
  call.cache.key_head_stride = 65;
  const Refusal refusal = refusal_of([&] { problem.plan.decode(call); });
  CHECK(refusal.field == "cache.key_head_stride");
  CHECK(contains(refusal.rule, "multiple of 16 bytes"));
  CHECK(problem.outputs_are_poison());
}

TEST_CASE("cuda: refresh is refused while its stream is captured, and the capture goes on") {
  const Context context("cuda:0");
  const SmallProblem problem(context, {});
  problem.encode();
  const HostStream stream;
  const Graph graph(stream, [&](CUstream captured) {
    problem.plan.decode(problem.call(), captured);
    const Refusal refusal = refusal_of([&] { problem.kernel.refresh(captured); });
    CHECK(refusal.status == ADAMAS_INVALID_ARGUMENT);
    CHECK(refusal.field == "stream");
  });
  graph.replay();
  CHECK(problem.out.read<std::uint16_t>() == problem.decode().out);
  CHECK(problem.kernel.refresh(stream.get())->info().state == ADAMAS_KERNEL_COMPLETE);
}

TEST_CASE("cuda: a step reads what the kernel before it writes, though that one lets it start early") {
  struct Step {
    const char* name;
    Operation operation;
    std::string tuning;
  };
  const Context context("cuda:0");
  const HostStream stream;
  const LateCopy late;
  for (const Step& step :
       {Step{"decode", &Plan::decode, ""}, Step{"decode", &Plan::decode, "schedule=stages"},
        Step{"dense", &Plan::dense, ""}}) {
    CAPTURE(step.name);
    CAPTURE(step.tuning);
    // No row may be short: a kernel for those would come first.
    const SmallProblem problem(context, {.spec = "head_dim=64 group=2 budget=16",
                                         .sequences = {{1, 200}, {2, 120}, {3, 64}},
                                         .tuning = step.tuning});
    problem.encode();
    const Attended want = problem.attend_with(step.operation, problem.call());
    for (const DeviceMemory* input : {&problem.lengths, &problem.query, &problem.table}) {
      const auto right = input->read<unsigned char>();
      const DeviceMemory copy = DeviceMemory::of(context, right);
      const std::vector<unsigned char> wrong(right.size(), 0);
      const auto enqueue = [&](CUstream on) {
        late.enqueue(input->data(), copy.data(), right.size(), on);
        (problem.plan.*step.operation)(problem.call(), on);
      };
      const auto check = [&](const auto& run) {
        input->write(wrong.data(), wrong.size());
        problem.poison_outputs();
        context.synchronize();
        run();
        check_cuda(cuda_driver().cuStreamSynchronize(stream.get()), "cuStreamSynchronize");
        CHECK(problem.out.read<std::uint16_t>() == want.out);
        CHECK(problem.lse.read<float>() == want.lse);
      };
      check([&] { enqueue(stream.get()); });
      const Graph graph(stream, enqueue);
      for (int replay = 0; replay < 3; ++replay) {
        check([&] { graph.replay(); });
      }
    }
  }
}

TEST_CASE("cuda: a captured graph follows lengths and tables in device memory, and counts every replay") {
  const Context context("cuda:0");
  const SmallProblem problem(context, {.spec = "head_dim=64 group=2 budget=16",
                                       .sequences = {{1, 200}, {2, 120}, {3, 64}},
                                       .dense_below = 20});
  problem.encode();
  const auto clean_table = problem.table.read<std::int32_t>();
  const HostStream stream;
  const Graph graph(stream, [&](CUstream captured) {
    problem.kernel.encode(problem.encode_args(), captured);
    problem.plan.decode(problem.call(), captured);
  });

  std::uint64_t rows = 0, scanned = 0, attended = 0, dense_short = 0;
  context.clear(problem.counters.data());
  context.synchronize();
  for (int step = 0; step < 100; ++step) {
    const std::vector<std::int32_t> lengths = {100 + step, step % 7 == 0 ? 0 : 20 + step, 64 - step % 60};
    problem.lengths.write(lengths.data(), problem.lengths.size());
    // Every other step the third sequence reads the first one's pages.
    auto table = clean_table;
    const auto pages = static_cast<std::ptrdiff_t>(problem.pages_per_sequence);
    if (step % 2 == 1) std::copy_n(clean_table.begin(), pages, table.begin() + 2 * pages);
    problem.table.write(table.data(), problem.table.size());

    graph.replay();
    const auto out = problem.out.read<std::uint16_t>();
    const auto lse = problem.lse.read<float>();
    for (const std::int32_t length : lengths) {
      const auto tokens = static_cast<std::uint64_t>(length);
      const auto heads = static_cast<std::uint64_t>(problem.query_heads());
      if (tokens == 0) continue;
      rows += heads;
      scanned += tokens * static_cast<std::uint64_t>(problem.shape.kv_heads);
      attended += heads * (tokens <= 20 ? tokens : 16);
      dense_short += tokens <= 20 ? heads : 0;
    }
    if (step % 10 != 3) continue;
    Call direct = problem.call();
    direct.counters = nullptr;
    problem.plan.decode(direct);
    CHECK(problem.out.read<std::uint16_t>() == out);
    CHECK(problem.lse.read<float>() == lse);
  }
  const Counters counted = context.read(problem.counters.data());
  CHECK(counted.status == 0);
  CHECK(counted.steps == 100);
  CHECK(counted.rows == rows);
  CHECK(counted.tokens_scanned == scanned);
  CHECK(counted.tokens_attended == attended);
  CHECK(counted.dense_short == dense_short);
  CHECK(counted.tokens_encoded ==
        100 * static_cast<std::uint64_t>(problem.slots) * static_cast<std::uint64_t>(problem.shape.kv_heads));
}

}  // namespace adamas::tests
