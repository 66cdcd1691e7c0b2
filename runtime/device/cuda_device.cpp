// Device and Module over the CUDA driver API. Every call makes the device's primary context current and
// restores the caller's, so that hosts may keep contexts of their own; launches do nothing else that a stream
// capture would refuse.
#include "runtime/device/cuda_device.hpp"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include "codegen/error.hpp"
#include "codegen/format.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "runtime/device/cuda_context.hpp"
#include "runtime/device/cuda_driver.hpp"
#include "runtime/device/cuda_stream.hpp"

namespace adamas::runtime {
namespace {

using codegen::Error;
using codegen::Stage;

int attribute(CUdevice_attribute which, CUdevice device) {
  int value = 0;
  check_cuda(cuda_driver().cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

std::pair<int, int> compute_capability(CUdevice device) {
  return {attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device),
          attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)};
}

std::string device_name(CUdevice device) {
  char name[256] = {};
  check_cuda(cuda_driver().cuDeviceGetName(name, sizeof name, device), "cuDeviceGetName");
  return name;
}

/// The driver is given no length: what is no whole ELF file would send it beyond the buffer.
void check_cubin(std::span<const std::byte> binary, const std::string& name) {
  Elf64_Ehdr header{};
  const bool whole_header = binary.size() >= sizeof header;
  if (whole_header) std::memcpy(&header, binary.data(), sizeof header);
  const std::uint64_t sections = std::uint64_t{header.e_shnum} * header.e_shentsize;
  const std::uint64_t segments = std::uint64_t{header.e_phnum} * header.e_phentsize;
  const auto inside = [&](std::uint64_t offset, std::uint64_t bytes) {
    return offset <= binary.size() && bytes <= binary.size() - offset;
  };
  if (!whole_header || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      !inside(header.e_shoff, sections) || !inside(header.e_phoff, segments)) {
    throw Error(ADAMAS_DEVICE_ERROR, "binary", name, "must be a whole cubin (ELF file)", "compile it again");
  }
}

/// Whether a stage may begin while the kernel before it ends: those of a step may, see
/// templates/cuda/launch.cuh. But not the selection: its few blocks would be put together on the
/// multiprocessors that the scan leaves room on, in place of one each.
bool begins_early(Stage stage) {
  return codegen::unit_of(stage) != codegen::Unit::encode && stage != Stage::select;
}

/// Whether a stage's blocks are launched in clusters: also those of one block, whose mailboxes a plain block
/// has not.
bool in_clusters(Stage stage) { return codegen::decodes(codegen::unit_of(stage)); }

class CudaModule final : public Module {
 public:
  CudaModule(std::shared_ptr<const PrimaryContext> context, CUdevice device, std::string name,
             std::span<const std::byte> binary, std::span<const Stage> stages)
      : context_(std::move(context)), name_(std::move(name)) {
    check_cubin(binary, name_);
    const Current current(*context_);
    current.checked();
    check_cuda(
        cuda_driver().cuLibraryLoadData(&library_, binary.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "cuLibraryLoadData", name_);
    try {
      const int most_shared = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device);
      for (const Stage stage : stages)
        resolve(stage, most_shared);
    } catch (...) {
      cuda_driver().cuLibraryUnload(library_);
      throw;
    }
  }

  ~CudaModule() override {
    const Current current(*context_);
    cuda_driver().cuLibraryUnload(library_);
  }

  CudaModule(const CudaModule&) = delete;
  CudaModule& operator=(const CudaModule&) = delete;

  void launch(Stage stage, const codegen::Grid& grid, const adamas_abi::Args& args,
              Stream stream) const override {
    const CUfunction function = functions_[index(stage)];
    if (!function) {
      throw Error(ADAMAS_INTERNAL, "stage", codegen::entry_name(stage), "was not loaded with " + name_);
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;  // no work items; the driver would refuse it
    void* parameters[] = {const_cast<adamas_abi::Args*>(&args)};
    const Current current(*context_);
    current.checked();
    const CUresult result = begins_early_[index(stage)]
                                ? launch_early(stage, grid, parameters, stream)
                                : cuda_driver().cuLaunchKernel(
                                      function, grid.x, grid.y, grid.z, grid.threads, 1, 1, grid.shared_bytes,
                                      static_cast<CUstream>(stream), parameters, nullptr);
    if (result != CUDA_SUCCESS) {
      check_cuda(
          result, "cuLaunchKernel",
          fmt::format("{} of {}, grid {}x{}x{}, {} threads, {} bytes shared", codegen::entry_name(stage),
                      name_, grid.x, grid.y, grid.z, grid.threads, grid.shared_bytes));
    }
  }

 private:
  static std::size_t index(Stage stage) { return static_cast<std::size_t>(stage); }

  /// A launch that may begin while the kernel before it ends: it waits for that itself.
  CUresult launch_early(Stage stage, const codegen::Grid& grid, void** parameters, Stream stream) const {
    std::array<CUlaunchAttribute, 2> attributes{};
    attributes[0].id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attributes[0].value.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attributes[1].value.clusterDim = {grid.cluster, 1, 1};
    CUlaunchConfig config{};
    config.gridDimX = grid.x;
    config.gridDimY = grid.y;
    config.gridDimZ = grid.z;
    config.blockDimX = grid.threads;
    config.blockDimY = config.blockDimZ = 1;
    config.sharedMemBytes = grid.shared_bytes;
    config.hStream = static_cast<CUstream>(stream);
    config.attrs = attributes.data();
    config.numAttrs = in_clusters(stage) ? 2 : 1;
    return cuda_driver().cuLaunchKernelEx(&config, functions_[index(stage)], parameters, nullptr);
  }

  /// Finds an entry point, loads it now (the driver would do so at the first launch, which may be under
  /// capture) and lets it have all the shared memory that a block can ask for.
  void resolve(Stage stage, int most_shared) {
    const CudaDriver& driver = cuda_driver();
    const std::string entry = codegen::entry_name(stage);
    const std::string what = entry + " of " + name_;
    CUkernel kernel = nullptr;
    CUfunction function = nullptr;
    check_cuda(driver.cuLibraryGetKernel(&kernel, library_, entry.c_str()), "cuLibraryGetKernel", what);
    check_cuda(driver.cuKernelGetFunction(&function, kernel), "cuKernelGetFunction", what);
    if (driver.cuFuncLoad) check_cuda(driver.cuFuncLoad(function), "cuFuncLoad", what);
    int own_shared = 0;
    check_cuda(driver.cuFuncGetAttribute(&own_shared, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function),
               "cuFuncGetAttribute", what);
    check_cuda(driver.cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                         most_shared - own_shared),
               "cuFuncSetAttribute", what);
    functions_[index(stage)] = function;
    // Machine code of sm_90 and later waits for the kernel before it, see templates/cuda/launch.cuh.
    int version = 0;
    check_cuda(driver.cuFuncGetAttribute(&version, CU_FUNC_ATTRIBUTE_BINARY_VERSION, function),
               "cuFuncGetAttribute", what);
    begins_early_[index(stage)] = begins_early(stage) && version >= 90;
  }

  std::shared_ptr<const PrimaryContext> context_;
  std::string name_;
  CUlibrary library_ = nullptr;
  std::array<CUfunction, codegen::kStages.size()> functions_{};
  std::array<bool, codegen::kStages.size()> begins_early_{};
};

class CudaDevice final : public Device {
 public:
  CudaDevice(int ordinal, CUdevice device)
      : ordinal_(ordinal),
        device_(device),
        name_(device_name(device)),
        capability_(compute_capability(device)),
        processors_(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device)),
        context_(std::make_shared<const PrimaryContext>(device)) {}

  std::string id() const override { return fmt::format("cuda:{}", ordinal_); }
  std::string name() const override { return name_; }
  const codegen::Generator& generator() const override { return codegen::cuda_generator(); }
  int processors() const override { return processors_; }
  std::size_t alignment() const override { return 16; }
  std::vector<std::string> targets() const override {
    return cuda_targets(capability_.first, capability_.second);
  }
  std::shared_ptr<Compiler> compiler() const override { return nvrtc_compiler(); }

  std::shared_ptr<const Module> load(const std::string& name, std::span<const std::byte> binary,
                                     std::span<const Stage> stages) const override {
    return std::make_shared<const CudaModule>(context_, device_, name, binary, stages);
  }

  void* allocate(std::uint64_t bytes) const override {
    const Current current(*context_);
    current.checked();
    CUdeviceptr pointer = 0;
    check_cuda(cuda_driver().cuMemAlloc_v2(&pointer, std::max<std::uint64_t>(bytes, 1)), "cuMemAlloc",
               fmt::format("{} bytes", bytes));
    return reinterpret_cast<void*>(pointer);
  }

  void release(void* pointer) const noexcept override {
    if (!pointer) return;
    const Current current(*context_);
    cuda_driver().cuMemFree_v2(address(pointer));
  }

  void copy_to_device(void* to, const void* from, std::uint64_t bytes, Stream stream) const override {
    const Current current(*context_);
    current.checked();
    if (bytes > 0) {
      check_cuda(cuda_driver().cuMemcpyHtoDAsync_v2(address(to), from, bytes, native(stream)),
                 "cuMemcpyHtoDAsync", fmt::format("{} bytes", bytes));
    }
    check_cuda(cuda_driver().cuStreamSynchronize(native(stream)), "cuStreamSynchronize");
  }

  void copy_to_host(void* to, const void* from, std::uint64_t bytes, Stream stream) const override {
    copy_to_host_async(to, from, bytes, stream);
    synchronize(stream);
  }

  void copy_to_host_async(void* to, const void* from, std::uint64_t bytes, Stream stream) const override {
    if (bytes == 0) return;
    const Current current(*context_);
    current.checked();
    check_cuda(cuda_driver().cuMemcpyDtoHAsync_v2(to, address(from), bytes, native(stream)),
               "cuMemcpyDtoHAsync", fmt::format("{} bytes", bytes));
  }

  void clear(void* pointer, std::uint64_t bytes, Stream stream) const override {
    if (bytes == 0) return;
    const Current current(*context_);
    current.checked();
    check_cuda(cuda_driver().cuMemsetD8Async(address(pointer), 0, bytes, native(stream)), "cuMemsetD8Async",
               fmt::format("{} bytes", bytes));
  }

  void copy_on_device(void* to, const void* from, std::uint64_t bytes, Stream stream) const override {
    if (bytes == 0) return;
    const Current current(*context_);
    current.checked();
    check_cuda(cuda_driver().cuMemcpyDtoDAsync_v2(address(to), address(from), bytes, native(stream)),
               "cuMemcpyDtoDAsync", fmt::format("{} bytes", bytes));
  }

  bool is_capturing(Stream stream) const override {
    const Current current(*context_);
    current.checked();
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    const CUresult result = cuda_driver().cuStreamIsCapturing(native(stream), &status);
    // What the legacy default stream says while another stream is captured.
    if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT) return true;
    check_cuda(result, "cuStreamIsCapturing");
    return status != CU_STREAM_CAPTURE_STATUS_NONE;
  }

  void synchronize(Stream stream) const override {
    const Current current(*context_);
    current.checked();
    check_cuda(cuda_driver().cuStreamSynchronize(native(stream)), "cuStreamSynchronize");
  }

  std::unique_ptr<OwnStream> make_stream() const override { return make_cuda_stream(context_); }

 private:
  static CUdeviceptr address(const void* pointer) { return reinterpret_cast<CUdeviceptr>(pointer); }
  static CUstream native(Stream stream) { return static_cast<CUstream>(stream); }

  int ordinal_;
  CUdevice device_;
  std::string name_;
  std::pair<int, int> capability_;
  int processors_;
  std::shared_ptr<const PrimaryContext> context_;
};

/// Why this device cannot be used, or nothing.
std::string too_old(CUdevice device) {
  const auto [major, minor] = compute_capability(device);
  if (major >= kOldestCudaMajor) return {};
  return fmt::format("{} has compute capability {}.{}, and {}.0 (Ampere) or newer is needed",
                     device_name(device), major, minor, kOldestCudaMajor);
}

CUdevice device_of(int ordinal) {
  CUdevice device = 0;
  check_cuda(cuda_driver().cuDeviceGet(&device, ordinal), "cuDeviceGet", std::to_string(ordinal));
  return device;
}

class CudaBackend final : public Backend {
 public:
  std::string name() const override { return "cuda"; }
  int device_count() const override { return cuda_driver().problem.empty() ? cuda_driver().devices : 0; }

  std::string unavailable() const override {
    if (!cuda_driver().problem.empty()) return cuda_driver().problem;
    std::string reasons;
    try {
      for (int ordinal = 0; ordinal < cuda_driver().devices; ++ordinal) {
        const std::string reason = too_old(device_of(ordinal));
        if (reason.empty()) return {};
        reasons += (reasons.empty() ? "" : "; ") + reason;
      }
    } catch (const Error& error) {
      return error.what();
    }
    return reasons + "; use the device cpu";
  }

  std::shared_ptr<Device> open(int ordinal, int /*threads*/, const HostParallelFor& /*host*/) const override {
    const std::string id = fmt::format("cuda:{}", ordinal);
    if (const std::string& problem = cuda_driver().problem; !problem.empty()) {
      throw Error(ADAMAS_UNAVAILABLE, "device", id, problem);
    }
    if (ordinal < 0 || ordinal >= cuda_driver().devices) {
      throw Error(ADAMAS_UNAVAILABLE, "device", id,
                  fmt::format("must be below the {} device(s) that the driver shows", cuda_driver().devices),
                  fmt::format("use cuda:0 to cuda:{}; CUDA_VISIBLE_DEVICES hides and renumbers devices",
                              cuda_driver().devices - 1));
    }
    const CUdevice device = device_of(ordinal);
    if (const std::string reason = too_old(device); !reason.empty()) {
      throw Error(ADAMAS_UNAVAILABLE, "device", id, reason, "use another GPU, or the device cpu");
    }
    return std::make_shared<CudaDevice>(ordinal, device);
  }
};

}  // namespace

std::vector<std::string> cuda_targets(int major, int minor) {
  // Binaries run on later minor versions of the same major one, but never from or to Tegra chips, which
  // therefore are not in this list. Those marked `own` have a variant ("a") with features of exactly that
  // architecture.
  struct Architecture {
    int number;
    bool own;
  };
  static constexpr Architecture kDesktop[] = {{121, false}, {120, false}, {103, true}, {100, true},
                                              {90, true},   {89, false},  {86, false}, {80, false}};
  static constexpr int kTegra[] = {87, 101, 110};
  const int device = major * 10 + minor;
  const std::string plain = fmt::format("sm_{}", device);
  if (std::find(std::begin(kTegra), std::end(kTegra), device) != std::end(kTegra)) return {plain};
  std::vector<std::string> targets;
  for (const auto [number, own] : kDesktop) {
    if (number / 10 != major || number > device) continue;
    if (own && number == device) targets.push_back(plain + "a");
    targets.push_back(fmt::format("sm_{}", number));
  }
  if (std::find(targets.begin(), targets.end(), plain) == targets.end())
    targets.insert(targets.begin(), plain);
  return targets;
}

const Backend& cuda_backend() {
  static const CudaBackend backend;
  return backend;
}

}  // namespace adamas::runtime
