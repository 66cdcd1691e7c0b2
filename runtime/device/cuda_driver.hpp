// The CUDA driver, loaded at run time: one list of symbols, used to declare the table and to fill it.
//
// Nothing links to libcuda: a machine without a GPU or driver runs everything else, and is told what is
// missing.
#pragma once

#include <cuda.h>

#include <string>

namespace adamas::runtime {

// Versioned names are spelled out: cuda.h maps plain names such as cuMemAlloc to them by macros, for
// declarations but not for dlsym. cuEventElapsedTime is not: its _v2 takes the same arguments, and drivers
// before 12.8 lack it.
#define ADAMAS_CUDA_DRIVER_SYMBOLS(X) \
  X(cuInit)                           \
  X(cuDriverGetVersion)               \
  X(cuGetErrorName)                   \
  X(cuGetErrorString)                 \
  X(cuDeviceGetCount)                 \
  X(cuDeviceGet)                      \
  X(cuDeviceGetName)                  \
  X(cuDeviceGetAttribute)             \
  X(cuDevicePrimaryCtxRetain)         \
  X(cuDevicePrimaryCtxRelease_v2)     \
  X(cuCtxPushCurrent_v2)              \
  X(cuCtxPopCurrent_v2)               \
  X(cuMemAlloc_v2)                    \
  X(cuMemFree_v2)                     \
  X(cuMemcpyHtoDAsync_v2)             \
  X(cuMemcpyDtoHAsync_v2)             \
  X(cuMemcpyDtoDAsync_v2)             \
  X(cuMemsetD8Async)                  \
  X(cuStreamCreate)                   \
  X(cuStreamDestroy_v2)               \
  X(cuStreamSynchronize)              \
  X(cuStreamBeginCapture_v2)          \
  X(cuStreamEndCapture)               \
  X(cuStreamIsCapturing)              \
  X(cuGraphInstantiateWithFlags)      \
  X(cuGraphGetNodes)                  \
  X(cuGraphLaunch)                    \
  X(cuGraphExecDestroy)               \
  X(cuGraphDestroy)                   \
  X(cuEventCreate)                    \
  X(cuEventRecord)                    \
  X(cuEventSynchronize)               \
  X(cuEventElapsedTime)               \
  X(cuEventDestroy_v2)                \
  X(cuLibraryLoadData)                \
  X(cuLibraryUnload)                  \
  X(cuLibraryGetKernel)               \
  X(cuKernelGetFunction)              \
  X(cuFuncGetAttribute)               \
  X(cuFuncSetAttribute)               \
  X(cuLaunchKernel)                   \
  X(cuLaunchKernelEx)

// Absent from older drivers that serve otherwise: cuFuncLoad came with CUDA 12.4.
#define ADAMAS_CUDA_DRIVER_OPTIONAL_SYMBOLS(X) X(cuFuncLoad)

struct CudaDriver {
#define ADAMAS_DECLARE(symbol) decltype(&::symbol) symbol = nullptr;
  ADAMAS_CUDA_DRIVER_SYMBOLS(ADAMAS_DECLARE)
  ADAMAS_CUDA_DRIVER_OPTIONAL_SYMBOLS(ADAMAS_DECLARE)
#undef ADAMAS_DECLARE

  int version = 0;      ///< what cuDriverGetVersion says: 13000 = CUDA 13.0; 0 = there is no driver
  int devices = 0;      ///< devices of any age; 0 unless `problem` is empty
  std::string problem;  ///< empty when the driver can be used, else what is missing and how to get it
};

/// The process's driver: loaded and initialised by the first call, never unloaded. Never throws.
const CudaDriver& cuda_driver();

/// "12.4" for 12040.
std::string cuda_version_text(int version);

/// "CUDA_ERROR_OUT_OF_MEMORY (out of memory)". Works without a driver.
std::string cuda_error_text(CUresult);

/// Returns if `result` is success.
/// @param call  the driver function, for the message
/// @param what  what it was called for: a kernel's name, "4096 bytes"
/// @throws codegen::Error(ADAMAS_OUT_OF_MEMORY or ADAMAS_DEVICE_ERROR) naming call, object and the driver's
/// reason.
void check_cuda(CUresult result, const char* call, const std::string& what = {});

}  // namespace adamas::runtime
