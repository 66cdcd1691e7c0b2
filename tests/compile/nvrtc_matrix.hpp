// The NVRTC matrix: representative Specs, the architectures we promise, the NVRTC versions that are here.
// Each unit must compile, have its entry points, and spill nothing. Needs no GPU.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "codegen/cuda_decode.hpp"
#include "codegen/format.hpp"
#include "codegen/generator.hpp"
#include "codegen/target.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "tests/compile/nvrtc_fixture.hpp"

namespace adamas::tests {

using namespace adamas::codegen;
using namespace adamas::runtime;

inline constexpr const char* kMatrixTargets[] = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a", "sm_120"};

// Each key's extremes and odd values at least once, in combinations that hosts have or that stress a kernel.
inline constexpr const char* kMatrixSpecs[] = {
    "",
    "head_dim=128 group=4 kv_type=bf16",
    "head_dim=64 group=8 page_size=64 query_rows=4",
    "head_dim=80 buckets=2 page_size=48 q_type=f32",
    "head_dim=96 group=5 page_size=1 scope=kv_head",
    "head_dim=112 buckets=8 estimator=manhattan hadamard=28",
    "head_dim=128 group=8 estimator=manhattan scope=kv_head cache_form=contiguous",
    "head_dim=192 value_dim=128 kv_type=bf16 out_type=f32 group=16",
    "head_dim=256 buckets=16 query_bits=8 group=8 budget=4096",
    "head_dim=512 query_bits=3 estimator=dot group=2",
    "head_dim=512 buckets=16 estimator=manhattan group=32 query_rows=8 page_size=1024",
    "head_dim=128 group=7 window=on soft_cap=on sink_logits=on lse=off sink=4 recent=60",
    "head_dim=16 value_dim=512 hadamard=4 budget=1 group=3 cache_form=contiguous",
    "head_dim=64 group=4 cache_form=slots",
    "head_dim=128 group=8 kv_type=bf16 cache_form=csr page_size=64",
    "head_dim=128 group=4 page_size=64 tables=split",
    "head_dim=128 group=4 cache_form=pointers page_size=64 tables=split query_rows=2",
    "head_dim=128 group=4 kv_type=f8e4m3fn page_size=64",
    "head_dim=256 group=8 kv_type=f8e4m3fn cache_form=slots",
    "head_dim=80 value_dim=512 group=5 kv_type=f8e4m3fn cache_form=contiguous",
};

struct MatrixJob {
  NvrtcCompiler* compiler;
  std::string spec, tuning, target;
  Unit unit;

  std::string text() const {
    return fmt::format("[{}] [{}] {} for {} by NVRTC {}", spec, tuning, name(unit), target,
                       compiler->library().version());
  }
};

/// All units with the default Tuning, and where bits are emulated the decode units with bytes in their place.
/// Not decode_long: of a cache of pointers with two tables it keeps two words of its attention in memory on
/// sm_100a.
inline std::vector<MatrixJob> jobs_of(NvrtcCompiler* compiler, const std::string& spec_text,
                                      const std::string& target) {
  constexpr int kEmulatesBits = 100;
  const Spec spec = Spec::parse(spec_text);
  std::vector<MatrixJob> jobs;
  for (const std::string tuning_text : {"", "schedule=cluster scan=bytes"}) {
    if (!tuning_text.empty() && cuda_architecture(target) < kEmulatesBits) continue;
    const Tuning tuning = Tuning::parse(tuning_text, spec, target);
    for (const Unit unit : cuda_generator().units(spec, tuning, target)) {
      const bool wanted = tuning_text.empty() || (decodes(unit) && unit != Unit::decode_long &&
                                                  cuda_decode_of(spec, tuning, unit).bytes);
      if (!wanted) continue;
      jobs.push_back({compiler, spec_text, tuning_text, target, unit});
    }
  }
  return jobs;
}

/// Compiles one unit. @return what is wrong with it, or nothing
inline std::string problem_of(const MatrixJob& job) {
  const Generator& generator = cuda_generator();
  const Spec spec = Spec::parse(job.spec);
  const Tuning tuning = Tuning::parse(job.tuning, spec, job.target);
  generator.check(spec, tuning, job.target);
  const PtxasReport report =
      job.compiler->ptxas_report({.name = fmt::format("{}.cu", name(job.unit)),
                                  .source = generator.emit(spec, tuning, job.target, job.unit),
                                  .target = job.target,
                                  .options = {},
                                  .spec_text = spec.text() + " | " + tuning.text()});
  std::vector<std::string> expected, found;
  for (const Stage stage : kStages) {
    if (unit_of(stage) == job.unit) expected.push_back(entry_name(stage));
  }
  for (const KernelResources& kernel : report.kernels)
    found.push_back(kernel.entry);
  std::sort(expected.begin(), expected.end());
  std::sort(found.begin(), found.end());
  if (found != expected) return fmt::format("has {} entry points, not {}", found.size(), expected.size());

  constexpr int kStaticLimit = 48 * 1024;
  for (const KernelResources& kernel : report.kernels) {
    const int spilled = kernel.spill_store_bytes + kernel.spill_load_bytes;
    if (spilled > 0) return fmt::format("{} spills {} bytes\n{}", kernel.entry, spilled, report.log);
    if (kernel.registers < 1) return fmt::format("{}: no registers in the log\n{}", kernel.entry, report.log);
    if (kernel.shared_bytes > kStaticLimit) {
      return fmt::format("{} has {} bytes of static shared memory", kernel.entry, kernel.shared_bytes);
    }
  }
  return {};
}

/// Runs jobs on all cores. @return the problems, each with its job
inline std::vector<std::string> run(const std::vector<MatrixJob>& jobs) {
  std::vector<std::string> problems;
  std::mutex mutex;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < jobs.size(); i = next++) {
      std::string problem;
      try {
        problem = problem_of(jobs[i]);
      } catch (const std::exception& error) {
        problem = error.what();
      }
      if (problem.empty()) continue;
      const std::lock_guard lock(mutex);
      problems.push_back(jobs[i].text() + ": " + problem);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i)
    threads.emplace_back(work);
  for (std::thread& thread : threads)
    thread.join();
  return problems;
}

inline bool knows(const NvrtcLibrary& library, const std::string& target) {
  const auto& known = library.architectures;
  return std::find(known.begin(), known.end(), cuda_architecture(target)) != known.end();
}

/// Checks the units of those combinations that `wanted(spec, target, compiler)` names, by their indices.
template <class Wanted>
void check_matrix(const Wanted& wanted) {
  if (nvrtc_libraries().empty()) {
    MESSAGE("left out: no NVRTC on this machine (tools/setup --all)");
    return;
  }
  std::vector<std::unique_ptr<NvrtcCompiler>> compilers;
  for (const auto& [major, library] : nvrtc_libraries()) {
    compilers.push_back(std::make_unique<NvrtcCompiler>(library));
  }
  std::vector<MatrixJob> jobs, refused;
  for (std::size_t s = 0; s < std::size(kMatrixSpecs); ++s) {
    for (std::size_t t = 0; t < std::size(kMatrixTargets); ++t) {
      for (std::size_t c = 0; c < compilers.size(); ++c) {
        if (!wanted(s, t, c, compilers.size())) continue;
        // An NVRTC older than an architecture refuses it by name.
        auto& list = knows(compilers[c]->library(), kMatrixTargets[t]) ? jobs : refused;
        for (MatrixJob& job : jobs_of(compilers[c].get(), kMatrixSpecs[s], kMatrixTargets[t]))
          list.push_back(std::move(job));
      }
    }
  }
  REQUIRE_FALSE(jobs.empty());
  const std::vector<std::string> problems = run(jobs);
  for (const std::string& problem : problems)
    FAIL_CHECK(problem);
  CHECK_MESSAGE(problems.empty(), problems.size() << " of " << jobs.size() << " units");
  for (const MatrixJob& job : refused) {
    CHECK_THROWS_WITH_AS_MESSAGE(problem_of(job), doctest::Contains("does not compile for it"), Error,
                                 job.text());
  }
}

}  // namespace adamas::tests
