// Device names to devices, what is said where there is none, and the targets of each GPU generation.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "codegen/error.hpp"
#include "runtime/device/cuda_device.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "runtime/device/device.hpp"

namespace {

using namespace adamas::runtime;
using adamas::codegen::Error;
using Targets = std::vector<std::string>;

/// Opens a device that must be refused.
Error refusal_of(const std::string& id) {
  try {
    open_device(id, 1);
  } catch (const Error& error) {
    return error;
  }
  return Error(ADAMAS_OK, id, "", "was opened");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("registry: backends, best first") {
  REQUIRE(backends().size() == 2);
  CHECK(backends()[0] == &cuda_backend());
  CHECK(backends()[1] == &cpu_backend());
  CHECK(cuda_backend().name() == "cuda");
  CHECK(cpu_backend().name() == "cpu");
}

TEST_CASE("registry: names that are none are refused with the names there are") {
  for (const char* id : {"", "gpu", "CPU", "cpu:0", "cpu:", "cuda:", "cuda:x", "cuda:-1", "cuda:1x",
                         "cuda:0:0", "cuda:99999999999", "cuda: 1", "cudaX", "auto:0"}) {
    CAPTURE(std::string(id));
    const Error error = refusal_of(id);
    CHECK(error.code() == ADAMAS_INVALID_ARGUMENT);
    CHECK(error.field() == "device");
    CHECK(error.value() == id);
    CHECK(contains(error.rule(), "cuda:N"));
  }
}

TEST_CASE("registry: cpu opens, auto takes the first backend that works") {
  const auto cpu = open_device("cpu", 1);
  CHECK(cpu->id() == "cpu");
  const auto first = open_device("auto", 1);
  CHECK(first->id() == (cuda_backend().unavailable().empty() ? "cuda:0" : "cpu"));
}

TEST_CASE("registry: a GPU that is not there is refused, with what is missing") {
  const Error beyond = refusal_of("cuda:4096");
  CHECK(beyond.code() == ADAMAS_UNAVAILABLE);
  CHECK(beyond.value() == "cuda:4096");

  const std::string missing = cuda_backend().unavailable();
  if (missing.empty()) {
    CHECK(cuda_backend().device_count() > 0);
    CHECK(contains(beyond.what(), "CUDA_VISIBLE_DEVICES"));
    return;
  }
  CHECK(cuda_driver().devices >= cuda_backend().device_count());
  for (const char* id : {"cuda", "cuda:0"}) {
    const Error error = refusal_of(id);
    CHECK(error.code() == ADAMAS_UNAVAILABLE);
    CHECK(contains(error.what(), missing));
    CHECK(contains(error.hint(), "cpu"));
  }
  CHECK_THROWS_AS(cuda_backend().open(0, 1), Error);
  // Each reason comes with its fix.
  if (cuda_driver().version == 0) {
    CHECK(contains(missing, "libcuda.so.1"));
    CHECK(contains(missing, "install driver"));
  }
}

TEST_CASE("cuda driver: errors can be told with or without a driver") {
  CHECK(contains(cuda_error_text(CUDA_ERROR_INVALID_VALUE),
                 cuda_driver().version == 0 ? "1" : "INVALID_VALUE"));
  CHECK(cuda_version_text(12040) == "12.4");
  CHECK(cuda_version_text(13000) == "13.0");
  CHECK_NOTHROW(check_cuda(CUDA_SUCCESS, "cuCall"));
  try {
    check_cuda(CUDA_ERROR_OUT_OF_MEMORY, "cuMemAlloc", "64 bytes");
    FAIL("no exception");
  } catch (const Error& error) {
    CHECK(error.code() == ADAMAS_OUT_OF_MEMORY);
    CHECK(error.field() == "cuMemAlloc");
    CHECK(error.value() == "64 bytes");
  }
  CHECK_THROWS_AS(check_cuda(CUDA_ERROR_INVALID_VALUE, "cuCall"), Error);
}

TEST_CASE("cuda targets: own architecture first, then older ones of the same major version") {
  CHECK(cuda_targets(8, 0) == Targets{"sm_80"});
  CHECK(cuda_targets(8, 6) == Targets{"sm_86", "sm_80"});
  CHECK(cuda_targets(8, 7) == Targets{"sm_87"});  // Tegra shares binaries with nothing else
  CHECK(cuda_targets(11, 0) == Targets{"sm_110"});
  CHECK(cuda_targets(8, 9) == Targets{"sm_89", "sm_86", "sm_80"});
  CHECK(cuda_targets(9, 0) == Targets{"sm_90a", "sm_90"});
  CHECK(cuda_targets(10, 0) == Targets{"sm_100a", "sm_100"});
  CHECK(cuda_targets(10, 3) == Targets{"sm_103a", "sm_103", "sm_100"});
  CHECK(cuda_targets(12, 0) == Targets{"sm_120"});
  CHECK(cuda_targets(12, 1) == Targets{"sm_121", "sm_120"});
  CHECK(cuda_targets(14, 2) == Targets{"sm_142"});  // not known yet
  CHECK(cuda_targets(12, 5) == Targets{"sm_125", "sm_121", "sm_120"});
}
