// Loading libcuda, and what to tell people when that does not work.
#include "runtime/device/cuda_driver.hpp"

#include <dlfcn.h>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

// cuLibrary* and cuKernel* came with CUDA 12.0.
constexpr int kOldestVersion = 12000;
constexpr const char* kOldestDriver = "CUDA 12.0, driver 525";

std::string init_problem(CUresult result, const CudaDriver& driver) {
  const std::string reason = fmt::format("cuInit says {}", cuda_error_text(result));
  switch (result) {
    case CUDA_ERROR_NO_DEVICE:
      return fmt::format(
          "the NVIDIA driver (CUDA {}) is installed but shows no GPU: check nvidia-smi, "
          "CUDA_VISIBLE_DEVICES, and in a "
          "container that it was started with its GPUs (docker run --gpus all)",
          cuda_version_text(driver.version));
    case CUDA_ERROR_STUB_LIBRARY:
      return "the libcuda.so.1 found is a toolkit's stub, not a driver: take the toolkit's stubs folder out "
             "of "
             "LD_LIBRARY_PATH, or install the NVIDIA driver";
    case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    case CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE:
      return reason +
             ": libcuda.so.1 does not belong to the running kernel driver; reboot after a driver update, or "
             "take a cuda-compat folder out of LD_LIBRARY_PATH";
    default:
      return reason + ": see whether nvidia-smi works; after a driver update a reboot is needed";
  }
}

/// Fills the table. @return what went wrong, or nothing.
std::string load(CudaDriver& driver) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* reason = dlerror();
    return fmt::format(
        "the NVIDIA driver is not installed ({}): install driver 525 or newer, and start a container with "
        "its GPUs "
        "(docker run --gpus all)",
        reason ? reason : "libcuda.so.1 not found");
  }
  std::string missing;
#define ADAMAS_LOAD(symbol)                                                           \
  driver.symbol = reinterpret_cast<decltype(driver.symbol)>(dlsym(library, #symbol)); \
  if (!driver.symbol) missing += missing.empty() ? #symbol : ", " #symbol;
  ADAMAS_CUDA_DRIVER_SYMBOLS(ADAMAS_LOAD)
#undef ADAMAS_LOAD
#define ADAMAS_LOAD_OPTIONAL(symbol) \
  driver.symbol = reinterpret_cast<decltype(driver.symbol)>(dlsym(library, #symbol));
  ADAMAS_CUDA_DRIVER_OPTIONAL_SYMBOLS(ADAMAS_LOAD_OPTIONAL)
#undef ADAMAS_LOAD_OPTIONAL

  if (driver.cuDriverGetVersion) driver.cuDriverGetVersion(&driver.version);
  if (driver.version < kOldestVersion || !missing.empty()) {
    return fmt::format("the NVIDIA driver is too old: it supports CUDA {}{}; install {} or newer",
                       cuda_version_text(driver.version), missing.empty() ? "" : " and lacks " + missing,
                       kOldestDriver);
  }
  if (const CUresult result = driver.cuInit(0); result != CUDA_SUCCESS) return init_problem(result, driver);
  if (const CUresult result = driver.cuDeviceGetCount(&driver.devices); result != CUDA_SUCCESS) {
    return fmt::format("the driver cannot list its devices: {}", cuda_error_text(result));
  }
  if (driver.devices == 0) return init_problem(CUDA_ERROR_NO_DEVICE, driver);
  return {};
}

// Separate from cuda_driver(), so that error texts can be made while the table is being filled.
CudaDriver& table() {
  static CudaDriver driver;
  return driver;
}

}  // namespace

const CudaDriver& cuda_driver() {
  static const bool loaded = [] {
    table().problem = load(table());
    return true;
  }();
  static_cast<void>(loaded);
  return table();
}

std::string cuda_version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string cuda_error_text(CUresult result) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (table().cuGetErrorName) table().cuGetErrorName(result, &name);
  if (table().cuGetErrorString) table().cuGetErrorString(result, &text);
  if (!name) return fmt::format("CUDA error {}", static_cast<int>(result));
  return fmt::format("{} ({})", name, text ? text : "no description");
}

void check_cuda(CUresult result, const char* call, const std::string& what) {
  if (result == CUDA_SUCCESS) return;
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    throw codegen::Error(ADAMAS_OUT_OF_MEMORY, call, what, "the GPU has not enough free memory",
                         "free device memory, or lower max_batch, max_tokens or max_slots");
  }
  throw codegen::Error(ADAMAS_DEVICE_ERROR, call, what, "the driver reported " + cuda_error_text(result));
}

}  // namespace adamas::runtime
