// Streams, graphs and events of the CUDA driver: see cuda_stream.hpp.
#include "runtime/device/cuda_stream.hpp"

#include <cstddef>
#include <utility>
#include <vector>

#include "codegen/format.hpp"

namespace adamas::runtime {
namespace {

/// The driver's stream, shared by its recordings. Its context is current only inside calls.
class StreamHandle {
 public:
  explicit StreamHandle(std::shared_ptr<const PrimaryContext> context) : context_(std::move(context)) {
    const Current current(*context_);
    current.checked();
    // Non-blocking: work of others on the default stream neither waits for this one nor holds it up.
    check_cuda(cuda_driver().cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  }
  ~StreamHandle() {
    const Current current(*context_);
    cuda_driver().cuStreamSynchronize(stream_);
    cuda_driver().cuStreamDestroy_v2(stream_);
  }
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;

  CUstream get() const { return stream_; }
  const PrimaryContext& context() const { return *context_; }

 private:
  std::shared_ptr<const PrimaryContext> context_;
  CUstream stream_ = nullptr;
};

/// Events for one replay. Needs the context current, for all its life.
class Events {
 public:
  explicit Events(std::size_t count) : events_(count, nullptr) {
    for (CUevent& event : events_) {
      const CUresult result = cuda_driver().cuEventCreate(&event, CU_EVENT_DEFAULT);
      if (result != CUDA_SUCCESS) {
        destroy();
        check_cuda(result, "cuEventCreate");
      }
    }
  }
  ~Events() { destroy(); }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  CUevent operator[](std::size_t i) const { return events_[i]; }
  CUevent last() const { return events_.back(); }

 private:
  void destroy() {
    for (const CUevent event : events_) {
      if (event != nullptr) cuda_driver().cuEventDestroy_v2(event);
    }
  }

  std::vector<CUevent> events_;
};

class CudaRecording final : public Recording {
 public:
  CudaRecording(std::shared_ptr<const StreamHandle> stream, CUgraph graph)
      : stream_(std::move(stream)), graph_(graph) {
    const Current current(stream_->context());
    CUresult result = cuda_driver().cuGraphGetNodes(graph_, nullptr, &nodes_);
    if (result == CUDA_SUCCESS) result = cuda_driver().cuGraphInstantiateWithFlags(&executable_, graph_, 0);
    if (result != CUDA_SUCCESS) {
      cuda_driver().cuGraphDestroy(graph_);
      check_cuda(result, "cuGraphInstantiate", fmt::format("{} nodes", nodes_));
    }
  }
  ~CudaRecording() override {
    const Current current(stream_->context());
    cuda_driver().cuStreamSynchronize(stream_->get());
    cuda_driver().cuGraphExecDestroy(executable_);
    cuda_driver().cuGraphDestroy(graph_);
  }
  CudaRecording(const CudaRecording&) = delete;
  CudaRecording& operator=(const CudaRecording&) = delete;

  std::vector<double> replay(int times) const override {
    const Current current(stream_->context());
    current.checked();
    const auto count = static_cast<std::size_t>(times);
    const Events events(count + 1);
    // The run ahead keeps the device busy while the host enqueues what is measured: no event is passed before
    // the graph behind it is in the queue.
    launch();
    mark(events[0]);
    for (std::size_t i = 0; i < count; ++i) {
      launch();
      mark(events[i + 1]);
    }
    check_cuda(cuda_driver().cuEventSynchronize(events.last()), "cuEventSynchronize");
    std::vector<double> microseconds(count);
    for (std::size_t i = 0; i < count; ++i) {
      float milliseconds = 0;
      check_cuda(cuda_driver().cuEventElapsedTime(&milliseconds, events[i], events[i + 1]),
                 "cuEventElapsedTime");
      microseconds[i] = 1e3 * static_cast<double>(milliseconds);
    }
    return microseconds;
  }

  std::size_t operations() const override { return nodes_; }

 private:
  void launch() const {
    check_cuda(cuda_driver().cuGraphLaunch(executable_, stream_->get()), "cuGraphLaunch",
               fmt::format("{} nodes", nodes_));
  }
  void mark(CUevent event) const {
    check_cuda(cuda_driver().cuEventRecord(event, stream_->get()), "cuEventRecord");
  }

  std::shared_ptr<const StreamHandle> stream_;
  CUgraph graph_;
  CUgraphExec executable_ = nullptr;
  std::size_t nodes_ = 0;
};

class CudaStream final : public OwnStream {
 public:
  explicit CudaStream(std::shared_ptr<const PrimaryContext> context)
      : handle_(std::make_shared<const StreamHandle>(std::move(context))) {}

  Stream get() const override { return handle_->get(); }

  std::unique_ptr<Recording> record(const std::function<void(Stream)>& work) const override {
    const Current current(handle_->context());
    current.checked();
    const CUstream stream = handle_->get();
    check_cuda(cuda_driver().cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
               "cuStreamBeginCapture");
    CUgraph graph = nullptr;
    try {
      work(stream);
    } catch (...) {
      cuda_driver().cuStreamEndCapture(stream, &graph);
      if (graph != nullptr) cuda_driver().cuGraphDestroy(graph);
      throw;
    }
    check_cuda(cuda_driver().cuStreamEndCapture(stream, &graph), "cuStreamEndCapture");
    return std::make_unique<CudaRecording>(handle_, graph);
  }

 private:
  std::shared_ptr<const StreamHandle> handle_;
};

}  // namespace

std::unique_ptr<OwnStream> make_cuda_stream(std::shared_ptr<const PrimaryContext> context) {
  return std::make_unique<CudaStream>(std::move(context));
}

}  // namespace adamas::runtime
