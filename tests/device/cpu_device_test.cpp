// The CPU device with kernels written by hand: every item once, the same bits whatever the host's arithmetic,
// launches from many threads, and binaries it must refuse.
#include "runtime/device/cpu_device.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "codegen/error.hpp"
#include "runtime/device/shared_object.hpp"
#include "runtime/device/thread_pool.hpp"
#include "tests/device/support.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace adamas::runtime;
using namespace adamas::tests;
using adamas::codegen::Error;
using adamas::codegen::Grid;
using adamas::codegen::Stage;

namespace {

constexpr char kKernels[] = R"(
// Counts each item of a grid of batch x kv_heads x ... (extents of x and y).
STAGE(scan) {
  const adamas_abi::i64 item = ((adamas_abi::i64)z * args->kv_heads + y) * args->batch + x;
  __atomic_fetch_add(args->counts + item, 1, __ATOMIC_RELAXED);
}

// Bits that depend on the floating-point environment: a denormal product, a denormal operand, a rounded
// quotient, and a sum that rounds to an integer.
STAGE(select) {
  volatile float tiny = 1e-38f, denormal = 1e-44f, one = 1.0f, three = 3.0f, half = 2.5f;
  volatile float product = tiny * 0.25f, sum = denormal * 8388608.0f, quotient = -one / three;
  float shifted = half + 12582912.0f;
  int* out = args->out_scores + 4 * x;
  __builtin_memcpy(out, (const void*)&product, 4);
  __builtin_memcpy(out + 1, (const void*)&sum, 4);
  __builtin_memcpy(out + 2, (const void*)&quotient, 4);
  __builtin_memcpy(out + 3, &shifted, 4);
}

// Calls back into the test: keys is the function, values its argument.
STAGE(attend) { ((void (*)(const void*, unsigned))args->keys)(args->values, x); }
)";

const std::vector<std::byte>& kernels() {
  static const std::vector<std::byte> binary = compile_stages(kKernels);
  return binary;
}

constexpr Stage kStagesUsed[] = {Stage::scan, Stage::select, Stage::attend};

std::shared_ptr<const Module> load_kernels(const Device& device) {
  return device.load("unit", kernels(), kStagesUsed);
}

/// How often each item of the grid ran.
std::vector<int> count_items(const Module& module, const Grid& grid) {
  std::vector<int> counts(std::size_t{grid.x} * grid.y * grid.z);
  adamas_abi::Args args{};
  args.counts = counts.data();
  args.batch = static_cast<int>(grid.x);
  args.kv_heads = static_cast<int>(grid.y);
  module.launch(Stage::scan, grid, args, nullptr);
  return counts;
}

bool all_once(const std::vector<int>& counts) {
  return std::ranges::all_of(counts, [](int count) { return count == 1; });
}

constexpr unsigned kProbes = 64;

std::vector<int> probe_floats(const Module& module) {
  std::vector<int> bits(4 * kProbes);
  adamas_abi::Args args{};
  args.out_scores = bits.data();
  module.launch(Stage::select, {.x = kProbes}, args, nullptr);
  return bits;
}

/// A host that rounds upward and flushes denormals to zero, for a scope.
class HostileArithmetic {
 public:
  HostileArithmetic() {
    std::fegetenv(&saved_);
    std::fesetround(FE_UPWARD);
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);  // flush to zero, denormals are zero
#else
    std::uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    asm volatile("msr fpcr, %0" : : "r"(control | (1u << 24)));
#endif
  }
  ~HostileArithmetic() { std::fesetenv(&saved_); }
  HostileArithmetic(const HostileArithmetic&) = delete;
  HostileArithmetic& operator=(const HostileArithmetic&) = delete;

 private:
  std::fenv_t saved_;
};

/// Whether the process may read there: the kernel is asked, which answers where a load would raise SIGSEGV.
bool is_readable(const void* address) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const bool readable = write(ends[1], address, 1) == 1;
  close(ends[0]);
  close(ends[1]);
  return readable;
}

}  // namespace

TEST_CASE("what the device says of itself") {
  const std::shared_ptr<Device> device = cpu_backend().open(0, 0);
  CHECK(device->id() == "cpu");
  CHECK_FALSE(device->name().empty());
  CHECK(device->alignment() == 1);
  CHECK(device->generator().language() == "cpu");
  REQUIRE_FALSE(device->targets().empty());
  CHECK(device->targets().front().find(':') != std::string::npos);  // this very machine first
  CHECK(device->compiler() != nullptr);
  CHECK(cpu_backend().name() == "cpu");
  CHECK(cpu_backend().device_count() == 1);
  CHECK(cpu_backend().unavailable().empty());
}

TEST_CASE("a kernel is called where nothing lies before its code") {
  // Checks of indirect calls (clang's -fsanitize=function) would read the word in front of the entry.
  const std::vector<std::byte> binary = compile_stages(R"(
extern "C" __attribute__((aligned(4096))) void adamas_scan(const adamas_abi::Args*, unsigned, unsigned, unsigned);
STAGE(scan) { args->counts[x] = 1; }
)");
  const SharedObject object("at the start of a page", binary);
  void* const entry = object.symbol("adamas_scan");
  REQUIRE(is_readable(entry));
  REQUIRE_FALSE(is_readable(static_cast<const char*>(entry) - 1));
  std::vector<int> counts(64);
  adamas_abi::Args args{};
  args.counts = counts.data();
  ThreadPool(2).run(reinterpret_cast<CpuEntry>(entry), args, {.x = 64});
  CHECK(all_once(counts));
}

TEST_CASE("threads and ordinals are checked") {
  CHECK(CpuDevice(3).threads() == 3);
  CHECK(CpuDevice(0).threads() >= 1);
  CHECK_THROWS_WITH_AS(
      CpuDevice(-1), "threads=-1: must lie in 0..1024; 0 takes one for each CPU the process may use", Error);
  CHECK_THROWS_AS(CpuDevice(1'000'000), Error);
  CHECK_THROWS_AS(cpu_backend().open(1, 0), Error);
}

TEST_CASE("every item of every grid runs exactly once") {
  for (const int threads : {1, 2, 5}) {
    const CpuDevice device(threads);
    const auto module = load_kernels(device);
    for (const Grid& grid :
         {Grid{1, 1, 1}, Grid{7, 1, 1}, Grid{1, 5, 1}, Grid{1, 1, 9}, Grid{3, 4, 5}, Grid{1000, 3, 7},
          Grid{2, 2, 50'000}, Grid{1'000'003, 1, 1}, Grid{1, 65, 1025}}) {
      CAPTURE(threads);
      CAPTURE(grid.x);
      CAPTURE(grid.y);
      CAPTURE(grid.z);
      CHECK(all_once(count_items(*module, grid)));
    }
  }
}

TEST_CASE("an empty grid runs nothing, one beyond 2^64 items is an error") {
  const CpuDevice device(2);
  const auto module = load_kernels(device);
  const adamas_abi::Args args{};  // a null pointer wherever an item would look
  for (const Grid& grid : {Grid{0, 1, 1}, Grid{1, 0, 1}, Grid{1, 1, 0}})
    module->launch(Stage::scan, grid, args, nullptr);
  constexpr std::uint32_t kMost = ~0u;
  CHECK_THROWS_AS(module->launch(Stage::scan, {.x = kMost, .y = kMost, .z = kMost}, args, nullptr), Error);
}

TEST_CASE("the host's rounding mode and denormal flags do not reach the kernels, nor theirs the host") {
  const CpuDevice device(2);
  const auto module = load_kernels(device);
  const std::vector<int> expected = probe_floats(*module);
  {
    const HostileArithmetic hostile;
    CHECK(probe_floats(*module) == expected);
    CHECK(std::fegetround() == FE_UPWARD);
    volatile float tiny = 1e-38f;
    volatile float product = tiny * 0.25f;
    CHECK(product == 0.0f);

    // Pool threads inherit the arithmetic of the thread that makes them.
    const CpuDevice hostile_device(3);
    CHECK(probe_floats(*load_kernels(hostile_device)) == expected);
  }
  CHECK(std::fegetround() == FE_TONEAREST);

  // The probe itself tells the difference: run bare, it does.
  struct Bare {
    static void probe(const void* self, unsigned) {
      const HostileArithmetic hostile;
      auto* const products = static_cast<float*>(const_cast<void*>(self));
      volatile float tiny = 1e-38f, one = 1.0f, three = 3.0f;
      products[0] = tiny * 0.25f;
      products[1] = -one / three;
    }
  };
  float bare[2];
  adamas_abi::Args args{};
  args.keys = reinterpret_cast<const void*>(&Bare::probe);
  args.values = bare;
  module->launch(Stage::attend, {}, args, nullptr);
  CHECK(std::memcmp(&bare[0], &expected[0], 4) != 0);
  CHECK(std::memcmp(&bare[1], &expected[2], 4) != 0);
}

TEST_CASE("launches from several threads at once") {
  const CpuDevice device(3);
  const auto module = load_kernels(device);
  std::vector<std::thread> hosts;
  std::atomic<int> wrong{0};
  for (unsigned host = 0; host < 4; ++host)
    hosts.emplace_back([&, host] {
      for (unsigned round = 0; round < 100; ++round)
        if (!all_once(count_items(*module, {.x = 17 + host, .y = 1 + round % 5, .z = 11}))) ++wrong;
    });
  for (std::thread& host : hosts)
    host.join();
  CHECK(wrong == 0);
}

TEST_CASE("a launch from inside an item runs there and does not wait for itself") {
  const CpuDevice device(2);
  const auto module = load_kernels(device);
  struct Nested {
    const Module* module;
    std::atomic<int> good{0};
    static void run(const void* self, unsigned) {
      auto* const nested = static_cast<Nested*>(const_cast<void*>(self));
      nested->good += all_once(count_items(*nested->module, {.x = 100, .y = 3}));
    }
  } nested{module.get()};
  adamas_abi::Args args{};
  args.keys = reinterpret_cast<const void*>(&Nested::run);
  args.values = &nested;
  module->launch(Stage::attend, {.x = 32}, args, nullptr);
  CHECK(nested.good == 32);
}

TEST_CASE("a module outlives its device") {
  std::shared_ptr<Device> device = cpu_backend().open(0, 2);
  const auto module = load_kernels(*device);
  device.reset();
  CHECK(all_once(count_items(*module, {.x = 1000})));
}

TEST_CASE("a child after fork can drop the device without waiting for threads it does not have") {
  auto device = std::make_unique<CpuDevice>(3);
  const auto module = load_kernels(*device);
  CHECK(all_once(count_items(*module, {.x = 100})));
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // a wait for ever ends as a failure
    device.reset();
    const_cast<std::shared_ptr<const Module>&>(module).reset();
    ::_exit(0);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(all_once(count_items(*module, {.x = 100})));
}

TEST_CASE("binaries that cannot be used are device errors, which the caller takes for a cache miss") {
  const CpuDevice device(1);
  const auto code_of = [&](const std::vector<std::byte>& binary, std::initializer_list<Stage> stages) {
    try {
      device.load("unit", binary, std::vector(stages));
      return ADAMAS_OK;
    } catch (const Error& error) {
      return error.code();
    }
  };
  CHECK(code_of(kernels(), {Stage::scan, Stage::select}) == ADAMAS_OK);
  CHECK(code_of(kernels(), {Stage::scan, Stage::merge}) == ADAMAS_DEVICE_ERROR);  // it exports no merge
  CHECK(code_of({}, {Stage::scan}) == ADAMAS_DEVICE_ERROR);
  std::vector<std::byte> damaged = kernels();
  damaged.resize(damaged.size() / 2);
  CHECK(code_of(damaged, {Stage::scan}) == ADAMAS_DEVICE_ERROR);
  damaged = kernels();
  damaged[18] = std::byte{243};  // e_machine: RISC-V
  CHECK(code_of(damaged, {Stage::scan}) == ADAMAS_DEVICE_ERROR);
}

TEST_CASE("a stage that was not loaded cannot be launched") {
  const CpuDevice device(1);
  const Stage only[] = {Stage::scan};
  const auto module = device.load("unit", kernels(), only);
  CHECK_THROWS_AS(module->launch(Stage::select, {}, {}, nullptr), Error);
}

TEST_CASE("memory") {
  const CpuDevice device(1);
  for (const std::uint64_t bytes : {0ull, 1ull, 63ull, 64ull, 1000ull}) {
    void* const memory = device.allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0);
    const std::vector<unsigned char> pattern(bytes, 0xab);
    std::vector<unsigned char> back(bytes, 1);
    device.copy_to_device(memory, pattern.data(), bytes, nullptr);
    device.copy_to_host(back.data(), memory, bytes, nullptr);
    CHECK(back == pattern);
    device.clear(memory, bytes, nullptr);
    device.copy_to_host_async(back.data(), memory, bytes, nullptr);
    device.synchronize(nullptr);
    CHECK(back == std::vector<unsigned char>(bytes, 0));
    device.release(memory);
  }
  device.release(nullptr);
  device.copy_to_host(nullptr, nullptr, 0, nullptr);
  for (const std::uint64_t bytes : {~0ull, ~0ull - 100, 1ull << 63}) {
    try {
      device.allocate(bytes);
      FAIL("must not succeed");
    } catch (const Error& error) {
      CHECK(error.code() == ADAMAS_OUT_OF_MEMORY);
    }
  }
}
