// The CUDA context that everything here runs in, and making it current for a scope.
#pragma once

#include "runtime/device/cuda_driver.hpp"

namespace adamas::runtime {

/// A reference to a device's primary context: the one that the CUDA runtime, and with it most hosts, uses.
class PrimaryContext {
 public:
  explicit PrimaryContext(CUdevice device) : device_(device) {
    check_cuda(cuda_driver().cuDevicePrimaryCtxRetain(&context_, device), "cuDevicePrimaryCtxRetain");
  }
  ~PrimaryContext() { cuda_driver().cuDevicePrimaryCtxRelease_v2(device_); }
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;

  CUcontext get() const { return context_; }

 private:
  CUdevice device_;
  CUcontext context_ = nullptr;
};

/// Makes a context current for a scope. Pushing and popping is no stream operation: a capture does not mind.
class Current {
 public:
  explicit Current(const PrimaryContext& context)
      : result_(cuda_driver().cuCtxPushCurrent_v2(context.get())) {}
  ~Current() {
    CUcontext popped = nullptr;
    if (result_ == CUDA_SUCCESS) cuda_driver().cuCtxPopCurrent_v2(&popped);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

  /// For callers that report; destructors and release() go on regardless.
  const Current& checked() const {
    check_cuda(result_, "cuCtxPushCurrent");
    return *this;
  }

 private:
  CUresult result_;
};

}  // namespace adamas::runtime
