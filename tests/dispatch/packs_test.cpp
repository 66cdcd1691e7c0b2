// Every operation on a machine that has a pack and no compiler: neither NVRTC nor adamas-cc can be found, and
// the cache folder is empty.
#include <doctest/doctest.h>

#include <filesystem>

#include "runtime/compile/cpu_compiler.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/compile/nvrtc_library.hpp"
#include "tests/cache/environment.hpp"
#include "tests/cache/support.hpp"
#include "tests/dispatch/packed.hpp"
#include "tests/dispatch/refusal.hpp"
#include "tests/dispatch/small_problem.hpp"

namespace adamas::tests {
namespace {

const std::string kSpec = SmallShape{}.spec;

/// Nothing that compiles is found from here on.
struct NoCompilers {
  Environment cc{"ADAMAS_CC", "/nowhere/adamas-cc"};
  Environment nvrtc{"ADAMAS_NVRTC_PATH", "/nowhere/libnvrtc.so"};
};

std::vector<std::uint8_t> exported_codes(const SmallProblem& problem) {
  const int head_dim = problem.spec.head_dim;
  const auto bytes = problem.context.allocate<std::uint8_t>(static_cast<std::size_t>(problem.slots) *
                                                            problem.shape.kv_heads * head_dim);
  problem.kernel.codes_export({.codes = problem.codes.data(), .bytes = bytes.data(), .count = problem.slots});
  problem.kernel.codes_import({.codes = problem.codes.data(), .bytes = bytes.data(), .count = problem.slots});
  return bytes.download();
}

struct Results {
  Attended decoded, attended, dense;
  Selected selected;
  std::vector<std::uint8_t> codes;
};

Results run_everything(const Context& context) {
  const SmallProblem problem(context, {});
  problem.encode();
  Results results;
  results.codes = exported_codes(problem);
  results.selected = problem.select();
  results.attended = problem.attend_with(&Plan::attend, problem.call());
  results.decoded = problem.decode();
  results.dense = problem.dense();
  return results;
}

}  // namespace

TEST_CASE("cpu: all operations run from a pack, with both compilers unfindable and no cache folder") {
  const ScratchFolder folder;
  const std::string target = runtime::runnable_cpu_targets().back();  // the most portable: another machine's pack
  write_kernel_pack(folder / "made-here.pack", kSpec, target);
  Results expected;
  {
    const Context context(ContextOptions{.device = "cpu"});
    expected = run_everything(context);
  }
  // Elsewhere, under another name.
  std::filesystem::create_directories(folder.path() / "opt/kernels");
  std::filesystem::rename(folder / "made-here.pack", folder / "opt/kernels/model.pack");

  const NoCompilers none;
  CHECK_FALSE(runtime::make_cpu_compiler()->unavailable().empty());
  CHECK(runtime::nvrtc_choice().library == nullptr);
  const std::string packs = folder / "opt/kernels/model.pack";
  const std::string cache_dir = folder / "cache";
  const Context context(
      ContextOptions{.device = "cpu", .cache_dir = cache_dir.c_str(), .packs = packs.c_str()});
  CHECK(context.info().packs == 1);
  const Results found = run_everything(context);
  const CacheCounters counters = context.cache_counters();
  CHECK(counters.compiles == 0);
  CHECK(counters.hits_pack == 3);
  CHECK(counters.hits_folder == 0);
  CHECK(files_below(folder / "cache").empty());

  CHECK(found.codes == expected.codes);
  CHECK(found.selected.positions == expected.selected.positions);
  CHECK(found.selected.counts == expected.selected.counts);
  CHECK(found.decoded.counters.tokens_attended == expected.decoded.counters.tokens_attended);
  CHECK(found.decoded.counters.rows == expected.decoded.counters.rows);
  CHECK(found.attended.out == found.decoded.out);  // the same lists, the same order of sums
  CHECK(found.dense.counters.dense_requested == expected.dense.counters.dense_requested);

  SUBCASE("what is not in the pack fails with the reason, and nothing is compiled") {
    const Refusal refusal = refusal_of([&] {
      context.prepare("head_dim=32 budget=8", {.max_batch = 1, .kv_heads = 1, .max_tokens = 16});
    });
    CHECK(refusal.status == ADAMAS_UNAVAILABLE);
    CHECK(contains(refusal.message, "head_dim=32"));
  }
}

TEST_CASE("cpu: a pack serves whoever has another compiler") {
  const ScratchFolder folder;
  write_kernel_pack(folder / "model.pack", kSpec, runtime::runnable_cpu_targets().back());
  // Any use of this one would be noticed.
  const Environment other("ADAMAS_CC", "/bin/false");
  const Environment packs("ADAMAS_PACKS", folder / "model.pack");
  const Context context(ContextOptions{.device = "cpu", .cache_dir = ""});
  CHECK(context.prepare(kSpec, {.max_batch = 1, .kv_heads = 1, .max_tokens = 16}).info().compiles == 0);
}

TEST_CASE("cpu: who asks for no Tuning takes the one that a pack was made with") {
  const ScratchFolder folder;
  const std::string target = runtime::runnable_cpu_targets().back();
  write_kernel_pack(folder / "model.pack", kSpec, target, "chunk=16 scan_tile=128");
  const std::string packs = folder / "model.pack";
  const NoCompilers none;
  const Context context(ContextOptions{.device = "cpu", .cache_dir = "", .packs = packs.c_str()});
  const Capacity capacity{.max_batch = 1, .kv_heads = 1, .max_tokens = 16};
  const Kernel kernel = context.prepare(kSpec, capacity);
  CHECK(contains(kernel.info().tuning, "scan_tile=128"));
  CHECK(contains(kernel.info().tuning, " chunk=16"));
  CHECK(kernel.info().target == target);
  // One who asks for another gets it or nothing.
  CHECK(refusal_of([&] { context.prepare(kSpec, capacity, "chunk=32"); }).status == ADAMAS_UNAVAILABLE);
}

}  // namespace adamas::tests
