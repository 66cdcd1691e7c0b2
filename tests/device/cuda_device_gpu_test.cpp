// The CUDA device on a real GPU: loading, launching, copies, the caller's context, graph capture, refusals.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "codegen/templates.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "runtime/device/device.hpp"

namespace {

using namespace adamas::runtime;
using adamas::codegen::Error;
using adamas::codegen::Grid;
using adamas::codegen::Stage;

// scan adds args.count to each position, through as much dynamic shared memory as the launch has; select
// doubles them.
constexpr const char* kKernels = R"(
extern "C" __global__ void adamas_scan(const __grid_constant__ adamas_abi::Args args) {
  extern __shared__ int shared[];
  unsigned bytes;
  asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
  int* own = shared + bytes / 4 - blockDim.x + threadIdx.x;  // the far end of it
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  *own = args.positions[i];
  __syncthreads();
  args.positions[i] = *own + static_cast<int>(args.count);
}
extern "C" __global__ void adamas_select(const __grid_constant__ adamas_abi::Args args) {
  args.positions[blockIdx.x * blockDim.x + threadIdx.x] *= 2;
}
)";

constexpr Stage kStagesHere[] = {Stage::scan, Stage::select};
constexpr int kItems = 256;
constexpr Grid kGrid{.x = 2, .y = 1, .z = 1, .threads = kItems / 2, .shared_bytes = kItems / 2 * 4};

std::shared_ptr<Device> device() {
  static const auto opened = open_device("cuda", 0);
  return opened;
}

std::vector<std::byte> compiled_for(const std::string& target) {
  return nvrtc_compiler()
      ->compile({.name = "device_test.cu",
                 .source = std::string(adamas::codegen::embedded_template("args.h")) + kKernels,
                 .target = target,
                 .options = {},
                 .spec_text = "none"})
      .binary;
}

std::shared_ptr<const Module> loaded() {
  static const auto module =
      device()->load("device_test", compiled_for(device()->targets().front()), kStagesHere);
  return module;
}

/// Device memory of a test.
class Positions {
 public:
  explicit Positions(std::shared_ptr<Device> owner)
      : owner_(std::move(owner)), data_(static_cast<int*>(owner_->allocate(kItems * sizeof(int)))) {}
  ~Positions() { owner_->release(data_); }
  Positions(const Positions&) = delete;
  Positions& operator=(const Positions&) = delete;

  void write(const std::vector<int>& values, Stream stream = nullptr) const {
    owner_->copy_to_device(data_, values.data(), values.size() * sizeof(int), stream);
  }
  std::vector<int> read(Stream stream = nullptr) const {
    std::vector<int> values(kItems);
    owner_->copy_to_host(values.data(), data_, values.size() * sizeof(int), stream);
    return values;
  }
  adamas_abi::Args args(int add) const {
    adamas_abi::Args block{};
    block.positions = data_;
    block.count = add;
    return block;
  }
  int* data() const { return data_; }

 private:
  std::shared_ptr<Device> owner_;
  int* data_;
};

std::vector<int> counting_from(int first) {
  std::vector<int> values(kItems);
  std::iota(values.begin(), values.end(), first);
  return values;
}

/// Driver functions that only this test needs, for what a host does around the library.
struct HostDriver {
  using CreateContext = CUresult (*)(CUcontext*, unsigned, CUdevice);  // cuCtxCreate_v2: in every driver
  CreateContext cuCtxCreate_v2;
#define ADAMAS_TEST_SYMBOLS(X)   \
  X(cuCtxDestroy_v2)             \
  X(cuCtxGetCurrent)             \
  X(cuStreamCreate)              \
  X(cuStreamDestroy_v2)          \
  X(cuStreamBeginCapture_v2)     \
  X(cuStreamEndCapture)          \
  X(cuGraphInstantiateWithFlags) \
  X(cuGraphLaunch)               \
  X(cuGraphExecDestroy)          \
  X(cuGraphDestroy)
#define ADAMAS_DECLARE(symbol) decltype(&::symbol) symbol;
  ADAMAS_TEST_SYMBOLS(ADAMAS_DECLARE)
#undef ADAMAS_DECLARE

  HostDriver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    REQUIRE(library != nullptr);
    cuCtxCreate_v2 = reinterpret_cast<CreateContext>(dlsym(library, "cuCtxCreate_v2"));
    REQUIRE((cuCtxCreate_v2 != nullptr));
#define ADAMAS_LOAD(symbol)                                                \
  symbol = reinterpret_cast<decltype(&::symbol)>(dlsym(library, #symbol)); \
  REQUIRE_MESSAGE((symbol != nullptr), #symbol);
    ADAMAS_TEST_SYMBOLS(ADAMAS_LOAD)
#undef ADAMAS_LOAD
  }

  CUcontext current() const {
    CUcontext context = nullptr;
    REQUIRE(cuCtxGetCurrent(&context) == CUDA_SUCCESS);
    return context;
  }
};

/// The primary context current, as a host that uses the CUDA runtime has it; and a stream in it.
class HostStream {
 public:
  explicit HostStream(const HostDriver& host) : host_(host) {
    REQUIRE(cuda_driver().cuDevicePrimaryCtxRetain(&context_, 0) == CUDA_SUCCESS);
    REQUIRE(cuda_driver().cuCtxPushCurrent_v2(context_) == CUDA_SUCCESS);
    REQUIRE(host_.cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
  }
  ~HostStream() {
    CUcontext popped = nullptr;
    host_.cuStreamDestroy_v2(stream_);
    cuda_driver().cuCtxPopCurrent_v2(&popped);
    cuda_driver().cuDevicePrimaryCtxRelease_v2(0);
  }
  HostStream(const HostStream&) = delete;
  HostStream& operator=(const HostStream&) = delete;

  CUstream get() const { return stream_; }

 private:
  const HostDriver& host_;
  CUcontext context_ = nullptr;
  CUstream stream_ = nullptr;
};

adamas_status status_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return ADAMAS_OK;
}

}  // namespace

TEST_CASE("cuda device: what it is") {
  CHECK(cuda_backend().unavailable().empty());
  CHECK(device()->id() == "cuda:0");
  CHECK_FALSE(device()->name().empty());
  CHECK(device()->alignment() == 16);
  REQUIRE_FALSE(device()->targets().empty());
  MESSAGE(device()->name() << ", " << device()->targets().front() << ", driver " << cuda_driver().version
                           << ", " << nvrtc_compiler()->identity());
}

TEST_CASE("cuda device: a loaded kernel runs with its arguments, stages in stream order") {
  const Positions positions(device());
  positions.write(counting_from(5));
  loaded()->launch(Stage::scan, kGrid, positions.args(1000), nullptr);
  loaded()->launch(Stage::select, kGrid, positions.args(0), nullptr);
  const std::vector<int> out = positions.read();
  for (int i = 0; i < kItems; ++i)
    REQUIRE(out[static_cast<std::size_t>(i)] == (5 + i + 1000) * 2);
}

TEST_CASE("cuda device: every target of the list runs") {
  for (const std::string& target : device()->targets()) {
    CAPTURE(target);
    const auto module = device()->load(target, compiled_for(target), kStagesHere);
    const Positions positions(device());
    positions.write(counting_from(0));
    module->launch(Stage::scan, kGrid, positions.args(7), nullptr);
    CHECK(positions.read() == counting_from(7));
  }
}

TEST_CASE("cuda device: more than 48 KB of dynamic shared memory") {
  const Positions positions(device());
  positions.write(counting_from(0));
  Grid grid = kGrid;
  grid.shared_bytes = 96 * 1024;  // the smallest opt-in maximum is 99 KB
  loaded()->launch(Stage::scan, grid, positions.args(3), nullptr);
  CHECK(positions.read() == counting_from(3));
}

TEST_CASE("cuda device: a grid without work items launches nothing") {
  const Positions positions(device());
  positions.write(counting_from(0));
  Grid grid = kGrid;
  grid.z = 0;
  loaded()->launch(Stage::scan, grid, positions.args(3), nullptr);
  CHECK(positions.read() == counting_from(0));
}

TEST_CASE("cuda device: refused launches and binaries name the call, and the device goes on") {
  const Positions positions(device());
  positions.write(counting_from(0));
  Grid grid = kGrid;
  grid.shared_bytes = 1 << 20;
  CHECK(status_of([&] { loaded()->launch(Stage::scan, grid, positions.args(1), nullptr); }) ==
        ADAMAS_DEVICE_ERROR);
  CHECK(status_of([&] { loaded()->launch(Stage::merge, kGrid, positions.args(1), nullptr); }) ==
        ADAMAS_INTERNAL);

  const auto binary = compiled_for(device()->targets().front());
  const std::vector<std::byte> garbage(4096, std::byte{0x5a});
  const std::vector<std::byte> half(binary.begin(),
                                    binary.begin() + static_cast<std::ptrdiff_t>(binary.size() / 2));
  for (const auto& broken : {garbage, half, std::vector<std::byte>{}}) {
    CHECK(status_of([&] { device()->load("broken", broken, kStagesHere); }) == ADAMAS_DEVICE_ERROR);
  }
  const std::string foreign = device()->targets().front() == "sm_120" ? "sm_90a" : "sm_120";
  CHECK(status_of([&] { device()->load("foreign", compiled_for(foreign), kStagesHere); }) ==
        ADAMAS_DEVICE_ERROR);
  constexpr Stage absent[] = {Stage::merge};
  CHECK(status_of([&] { device()->load("absent", binary, absent); }) == ADAMAS_DEVICE_ERROR);
  CHECK(status_of([&] { device()->allocate(std::uint64_t{1} << 60); }) == ADAMAS_OUT_OF_MEMORY);

  loaded()->launch(Stage::scan, kGrid, positions.args(2), nullptr);
  CHECK(positions.read() == counting_from(2));
}

TEST_CASE("cuda device: copies and clears, in part and of nothing") {
  const Positions positions(device());
  positions.write(counting_from(1));
  device()->clear(positions.data() + 10, 4 * sizeof(int), nullptr);
  device()->clear(positions.data(), 0, nullptr);
  device()->copy_to_device(positions.data(), nullptr, 0, nullptr);
  device()->copy_to_host(nullptr, positions.data(), 0, nullptr);
  std::vector<int> later(kItems);
  device()->copy_to_host_async(later.data(), positions.data(), kItems * sizeof(int), nullptr);
  device()->synchronize(nullptr);
  std::vector<int> expected = counting_from(1);
  std::fill_n(expected.begin() + 10, 4, 0);
  CHECK(later == expected);
  device()->release(nullptr);
}

TEST_CASE("cuda device: the caller's context is current again after every call, or none") {
  device()->synchronize(nullptr);  // the driver has been initialised, whichever case runs first
  const HostDriver host;
  const auto use_everything = [] {
    const Positions positions(device());
    positions.write(counting_from(0));
    device()->clear(positions.data(), sizeof(int), nullptr);
    const auto module = device()->load("again", compiled_for(device()->targets().front()), kStagesHere);
    module->launch(Stage::scan, kGrid, positions.args(1), nullptr);
    device()->synchronize(nullptr);
    CHECK(positions.read()[1] == 2);
    CHECK(status_of([] { device()->allocate(std::uint64_t{1} << 60); }) == ADAMAS_OUT_OF_MEMORY);
  };
  CHECK(host.current() == nullptr);
  use_everything();
  CHECK(host.current() == nullptr);

  CUcontext own = nullptr;
  REQUIRE(host.cuCtxCreate_v2(&own, 0, 0) == CUDA_SUCCESS);  // becomes current
  use_everything();
  CHECK(host.current() == own);
  REQUIRE(host.cuCtxDestroy_v2(own) == CUDA_SUCCESS);
}

TEST_CASE(
    "cuda device: launches are captured in a graph, under the strictest mode, and replay with new data") {
  const HostDriver host;
  const auto module = loaded();
  const Positions positions(device());
  const HostStream stream(host);
  CUgraph graph = nullptr;
  CUgraphExec replay = nullptr;

  positions.write(counting_from(0), stream.get());
  REQUIRE(host.cuStreamBeginCapture_v2(stream.get(), CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_SUCCESS);
  module->launch(Stage::scan, kGrid, positions.args(10), stream.get());
  module->launch(Stage::select, kGrid, positions.args(0), stream.get());
  REQUIRE(host.cuStreamEndCapture(stream.get(), &graph) == CUDA_SUCCESS);
  CHECK(positions.read(stream.get()) == counting_from(0));  // captured, not run

  REQUIRE(host.cuGraphInstantiateWithFlags(&replay, graph, 0) == CUDA_SUCCESS);
  for (const int first : {0, 77}) {
    positions.write(counting_from(first), stream.get());
    REQUIRE(host.cuGraphLaunch(replay, stream.get()) == CUDA_SUCCESS);
    const std::vector<int> out = positions.read(stream.get());
    for (int i = 0; i < kItems; ++i)
      REQUIRE(out[static_cast<std::size_t>(i)] == (first + i + 10) * 2);
  }
  host.cuGraphExecDestroy(replay);
  host.cuGraphDestroy(graph);
}

TEST_CASE("cuda device: a recording replays its work as often as asked, each run timed") {
  const Positions positions(device());
  const auto stream = device()->make_stream();
  positions.write(counting_from(0), stream->get());
  const auto recording = stream->record([&](Stream on) {
    loaded()->launch(Stage::scan, kGrid, positions.args(10), on);
    loaded()->launch(Stage::scan, kGrid, positions.args(1), on);
  });
  CHECK(positions.read() == counting_from(0));  // recorded, not run
  CHECK(recording->operations() == 2);
  const std::vector<double> microseconds = recording->replay(4);
  CHECK(microseconds.size() == 4);
  CHECK(std::all_of(microseconds.begin(), microseconds.end(), [](double us) { return us > 0; }));
  CHECK(positions.read() == counting_from(5 * 11));  // one run more than those timed

  CHECK(status_of([&] {
          stream->record([](Stream) { throw Error(ADAMAS_INTERNAL, "work", "", "failed"); });
        }) == ADAMAS_INTERNAL);
  loaded()->launch(Stage::scan, kGrid, positions.args(5), stream->get());  // no capture is left open
  CHECK(positions.read(stream->get()) == counting_from(60));
}

TEST_CASE("cuda device: copies from one place of its memory to another") {
  const Positions from(device()), to(device());
  from.write(counting_from(1));
  to.write(counting_from(0));
  device()->copy_on_device(to.data() + 3, from.data() + 7, 5 * sizeof(int), nullptr);
  device()->copy_on_device(nullptr, nullptr, 0, nullptr);
  std::vector<int> expected = counting_from(0);
  std::iota(expected.begin() + 3, expected.begin() + 8, 8);
  CHECK(to.read() == expected);
}

TEST_CASE("cuda device: a module outlives the device object that loaded it") {
  std::shared_ptr<const Module> module;
  const Positions positions(device());
  {
    const auto other = open_device("cuda:0", 0);
    module = other->load("outlives", compiled_for(other->targets().front()), kStagesHere);
  }
  positions.write(counting_from(0));
  module->launch(Stage::scan, kGrid, positions.args(4), nullptr);
  CHECK(positions.read() == counting_from(4));
}
