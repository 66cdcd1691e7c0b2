// The caches of host engines, each built in memory as that engine lays it out, with its tables, and what its
// integration then hands to the library: a function for each layout that an engine has.
#pragma once

#include "tests/conformance/engine.hpp"

namespace adamas::tests {

struct Engine {
  const char* name;
  const char* shape;  ///< of the workload: a shape that the engine's models have
  Handover (*build)(const Context& context, const Workload& workload);
  bool on_cuda = true;
};

/// Tables of pages: vLLM, SGLang, TensorRT-LLM, FlashInfer, ONNX Runtime, MLC, TurboMind.
const std::vector<Engine>& paged_engines();
/// Rows or cells without pages: llama.cpp, Hugging Face transformers, ONNX Runtime.
const std::vector<Engine>& row_engines();

/// Every engine's hand-over against the oracle.
void check_engines(const Context& context);

}  // namespace adamas::tests
