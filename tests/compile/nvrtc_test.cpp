// NVRTC: where it is looked for, which one a driver gets, compiling, errors, and what ptxas reports.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

#include "codegen/format.hpp"
#include "runtime/compile/nvrtc_compiler.hpp"
#include "tests/compile/nvrtc_fixture.hpp"

namespace {

namespace fs = std::filesystem;
using namespace adamas::runtime;
using adamas::tests::nvrtc_libraries;

/// A folder that goes with the test.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "adamas-nvrtc-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = fs::canonical(name);
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  /// Makes a file in a folder below. @return its path
  std::string file(const std::string& folder, const std::string& name, const std::string& text = "") const {
    fs::create_directories(path_ / folder);
    std::ofstream(path_ / folder / name) << text;
    return (path_ / folder / name).string();
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

NvrtcSearch search_in(std::vector<NvrtcSearch::Folder> folders, int driver_version = 0) {
  NvrtcSearch search;
  search.folders = std::move(folders);
  search.system_search = false;
  search.driver_version = driver_version;
  return search;
}

/// Looks in the folders of the real libraries, oldest first: order of places must not decide between
/// versions.
NvrtcSearch search_real(int driver_version) {
  std::vector<NvrtcSearch::Folder> folders;
  for (const auto& [major, library] : nvrtc_libraries()) {
    folders.push_back({fs::path(library->path).parent_path().string(), "test"});
  }
  return search_in(folders, driver_version);
}

int major_chosen(const NvrtcSearch& search) {
  const NvrtcChoice choice = choose_nvrtc(search);
  INFO(choice.problem);
  return choice.library ? choice.library->major : 0;
}

constexpr const char* kKernel = R"(
struct Arguments { int* out; int add; };
extern "C" __global__ void adamas_first(const __grid_constant__ Arguments a) {
  __shared__ int seen[100];
  seen[threadIdx.x % 100] = a.out[threadIdx.x];
  __syncthreads();
  a.out[threadIdx.x] = seen[(threadIdx.x + 1) % 100] + a.add;
}
extern "C" __global__ void adamas_second(const __grid_constant__ Arguments a) { a.out[blockIdx.x] = a.add; }
)";

CompileRequest request_for(std::string source, std::string target = "sm_80") {
  return {.name = "sample.cu",
          .source = std::move(source),
          .target = std::move(target),
          .options = {},
          .spec_text = "head_dim=128 budget=64"};
}

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("nvrtc search: places in order, each file once, both major versions") {
  const TemporaryFolder folder;
  const std::string first12 = folder.file("first", "libnvrtc.so.12");
  const std::string second13 = folder.file("second", "libnvrtc.so.13");
  const std::string second12 = folder.file("second", "libnvrtc.so.12");
  folder.file("second", "libnvrtc.so.11");  // too old to be looked at
  folder.file("empty", "unrelated.so");
  fs::create_symlink(folder / "second", folder / "alias");

  const auto found = find_nvrtc(search_in({{folder / "first", "one"},
                                           {folder / "missing", "two"},
                                           {folder / "empty", "three"},
                                           {folder / "second", "four"},
                                           {folder / "alias", "five"}}));
  REQUIRE(found.size() == 3);
  CHECK(found[0].path == first12);
  CHECK(found[0].origin == "one");
  CHECK(found[0].major == 12);
  CHECK(found[1].path == second13);
  CHECK(found[1].origin == "four");
  CHECK(found[1].major == 13);
  CHECK(found[2].path == second12);
}

TEST_CASE("nvrtc search: ADAMAS_NVRTC_PATH stands alone, as file or folder") {
  const TemporaryFolder folder;
  const std::string wanted = folder.file("wanted", "libnvrtc.so.12");
  folder.file("other", "libnvrtc.so.13");
  NvrtcSearch search = search_in({{folder / "other", "other"}});
  for (const std::string& path : {wanted, folder / "wanted"}) {
    CAPTURE(path);
    search.override_path = path;
    const auto found = find_nvrtc(search);
    REQUIRE(found.size() == 1);
    CHECK(found[0].path == wanted);
  }
  for (const std::string& path : {folder / "nowhere", folder / ""}) {
    CAPTURE(path);
    search.override_path = path;
    const NvrtcChoice choice = choose_nvrtc(search);
    CHECK(choice.library == nullptr);
    CHECK(contains(choice.problem, "ADAMAS_NVRTC_PATH"));
    CHECK(contains(choice.problem, path));
  }
}

TEST_CASE("nvrtc choice: what is no NVRTC is passed over, and told when nothing else is there") {
  const TemporaryFolder folder;
  const std::string broken = folder.file("broken", "libnvrtc.so.13", "no library");
  const NvrtcChoice none = choose_nvrtc(search_in({{folder / "broken", "test"}}));
  CHECK(none.library == nullptr);
  CHECK(contains(none.problem, broken));
  CHECK(contains(none.problem, "pip install nvidia-cuda-nvrtc"));
  REQUIRE(none.candidates.size() == 1);
  CHECK_FALSE(none.candidates[0].problem.empty());
  CHECK_FALSE(none.candidates[0].chosen);

  const NvrtcChoice nothing = choose_nvrtc(search_in({}));
  CHECK(nothing.library == nullptr);
  CHECK(contains(nothing.problem, "no NVRTC"));

  if (nvrtc_libraries().empty()) return;
  NvrtcSearch search = search_real(0);
  search.folders.insert(search.folders.begin(), {folder / "broken", "broken"});
  CHECK(major_chosen(search) == nvrtc_libraries().rbegin()->first);
}

TEST_CASE("nvrtc choice: the newest major version that the driver supports") {
  if (nvrtc_libraries().count(12) == 0 || nvrtc_libraries().count(13) == 0) {
    MESSAGE("left out: needs NVRTC 12 and 13 (tools/setup --all)");
    return;
  }
  CHECK(major_chosen(search_real(0)) == 13);      // no driver
  CHECK(major_chosen(search_real(13000)) == 13);  // driver 580
  CHECK(major_chosen(search_real(14010)) == 13);
  CHECK(major_chosen(search_real(12090)) == 12);
  CHECK(major_chosen(search_real(12000)) == 12);

  const NvrtcChoice none = choose_nvrtc(search_real(11080));
  CHECK(none.library == nullptr);
  CHECK(contains(none.problem, "driver supports CUDA 11.8"));

  // What the host has loaded already is taken before newer ones, unless the driver is too old for it.
  const auto in_process = [](int major, int driver) {
    NvrtcSearch search = search_real(driver);
    search.in_process = {
        {.path = nvrtc_libraries().at(major)->path, .origin = "this process", .major = major}};
    return major_chosen(search);
  };
  CHECK(in_process(12, 13000) == 12);
  CHECK(in_process(13, 13000) == 13);
  CHECK(in_process(13, 12040) == 12);

  // The user's word beats the driver's version: the binaries may be for another machine.
  NvrtcSearch search = search_real(12040);
  search.override_path = nvrtc_libraries().at(13)->path;
  CHECK(major_chosen(search) == 13);
}

TEST_CASE("nvrtc candidates: every one with version or problem, one chosen") {
  const auto candidates = nvrtc_candidates();
  int chosen = 0;
  for (const NvrtcCandidate& candidate : candidates) {
    CAPTURE(candidate.path);
    CHECK_FALSE(candidate.origin.empty());
    CHECK((candidate.minor >= 0 || !candidate.problem.empty()));
    chosen += candidate.chosen;
  }
  CHECK(chosen == (nvrtc_choice().library ? 1 : 0));
  CHECK(nvrtc_compiler()->unavailable().empty() == (chosen == 1));
}

TEST_CASE("nvrtc compile: a cubin, the same from each compile and from several threads") {
  for (const auto& [major, library] : nvrtc_libraries()) {
    CAPTURE(library->path);
    NvrtcCompiler compiler(library);
    const CompileResult first = compiler.compile(request_for(kKernel, "sm_90a"));
    REQUIRE(first.binary.size() > 4);
    CHECK(std::string(reinterpret_cast<const char*>(first.binary.data()), 4) ==
          "\x7f"
          "ELF");
    CHECK(first.milliseconds > 0);
    CHECK(first.log.empty());
    CHECK(std::regex_match(first.compiler,
                           std::regex(fmt::format("nvrtc {}\\.[0-9]+\\.[0-9]+ CL-[0-9]+", major))));
    CHECK(contains(first.compiler, compiler.build_id()));

    std::vector<std::vector<std::byte>> binaries(6);
    std::vector<std::thread> threads;
    for (auto& binary : binaries) {
      threads.emplace_back([&] { binary = compiler.compile(request_for(kKernel, "sm_90a")).binary; });
    }
    for (std::thread& thread : threads)
      thread.join();
    for (const auto& binary : binaries)
      CHECK(binary == first.binary);
    CHECK(compiler.compile(request_for(kKernel, "sm_80")).binary != first.binary);
  }
}

TEST_CASE("nvrtc compile: implied options that the caller repeats are given once") {
  for (const auto& [major, library] : nvrtc_libraries()) {
    CAPTURE(major);
    NvrtcCompiler compiler(library);
    CompileRequest request = request_for(kKernel);
    const auto plain = compiler.compile(request).binary;
    request.options = compiler.implied_options();
    CHECK(compiler.compile(request).binary == plain);
  }
}

TEST_CASE("nvrtc compile: a refused source comes back with log, options, spec and the dumped source") {
  const TemporaryFolder folder;
  REQUIRE(setenv("ADAMAS_DUMP_DIR", (folder / "dumps").c_str(), 1) == 0);
  for (const auto& [major, library] : nvrtc_libraries()) {
    CAPTURE(major);
    NvrtcCompiler compiler(library);
    bool thrown = false;
    try {
      compiler.compile(request_for("extern \"C\" __global__ void f() { undeclared_thing(); }\n"));
    } catch (const CompileError& error) {
      thrown = true;
      CHECK(error.code() == ADAMAS_COMPILE_FAILED);
      CHECK(contains(error.log(), "undeclared_thing"));
      CHECK(contains(error.log(), "sample.cu(1)"));
      CHECK(error.spec() == "head_dim=128 budget=64");
      CHECK(error.options() == std::vector<std::string>{"--gpu-architecture=sm_80", "--std=c++20"});
      CHECK(contains(error.what(), "undeclared_thing"));
      CHECK(contains(error.what(), error.dumped_source()));
      CHECK(contains(text_of(error.dumped_source()), "undeclared_thing()"));
    }
    CHECK(thrown);

    CompileRequest request = request_for(kKernel);
    request.options = {"--no-such-option"};
    CHECK_THROWS_AS(compiler.compile(request), CompileError);
  }
  unsetenv("ADAMAS_DUMP_DIR");
}

TEST_CASE("nvrtc compile: architectures that this NVRTC does not know are refused by name") {
  for (const auto& [major, library] : nvrtc_libraries()) {
    NvrtcCompiler compiler(library);
    // 190: later than any; 80a: a variant that does not exist.
    for (const char* target : {"sm_190", "sm_80a"}) {
      CAPTURE(major);
      CAPTURE(target);
      bool thrown = false;
      try {
        compiler.compile(request_for(kKernel, target));
      } catch (const adamas::codegen::Error& error) {
        thrown = true;
        CHECK(error.code() == ADAMAS_UNSUPPORTED);
        CHECK(error.field() == "target");
        CHECK(error.value() == target);
        CHECK(contains(error.rule(), library->version()));
        CHECK(contains(error.hint(), "ADAMAS_NVRTC_PATH"));
      }
      CHECK(thrown);
    }
    CHECK_THROWS_AS(compiler.compile(request_for(kKernel, "x86-64-v3")), adamas::codegen::Error);
  }
}

TEST_CASE("ptxas report: registers, shared memory and spills of each entry") {
  // 64 values live across a barrier do not fit into 32 registers.
  std::string hungry = "extern \"C\" __global__ void adamas_hungry(float* p) {\n";
  for (int i = 0; i < 64; ++i)
    hungry += fmt::format("  float v{} = p[{} * threadIdx.x];\n", i, i + 1);
  hungry += "  __syncthreads();\n";
  for (int i = 0; i < 64; ++i)
    hungry += fmt::format("  p[threadIdx.x + {}] = v{} * v{};\n", i, i, (i * 37 + 5) % 64);
  hungry += "}\n";

  for (const auto& [major, library] : nvrtc_libraries()) {
    CAPTURE(major);
    NvrtcCompiler compiler(library);
    const PtxasReport report = compiler.ptxas_report(request_for(kKernel));
    CAPTURE(report.log);
    REQUIRE(report.kernels.size() == 2);
    for (const KernelResources& kernel : report.kernels) {
      CHECK(kernel.registers > 0);
      CHECK(kernel.spill_store_bytes == 0);
      CHECK(kernel.spill_load_bytes == 0);
      CHECK(kernel.shared_bytes == (kernel.entry == "adamas_first" ? 400 : 0));
    }
    CHECK(report.kernels[0].entry != report.kernels[1].entry);

    CompileRequest starved = request_for(hungry);
    starved.options = {"--maxrregcount=32"};
    const PtxasReport spilling = compiler.ptxas_report(starved);
    REQUIRE(spilling.kernels.size() == 1);
    CHECK(spilling.kernels[0].spill_store_bytes > 0);
    CHECK(spilling.kernels[0].spill_load_bytes > 0);
    CHECK(spilling.kernels[0].registers <= 32);
  }
}

TEST_CASE("ptxas report: lines of called functions count for their entry") {
  const PtxasReport report = parse_ptxas_log(
      "ptxas info    : 16 bytes gmem\n"
      "ptxas info    : Compiling entry function 'adamas_scan' for 'sm_90a'\n"
      "ptxas info    : Function properties for adamas_scan\n"
      "ptxas         .     8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
      "ptxas info    : Used 168 registers, used 1 barriers, 49152 bytes smem, 640 bytes cmem[0]\n"
      "ptxas info    : Function properties for helper\n"
      "    24 bytes stack frame, 20 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Compile time = 1.6 ms\n"
      "ptxas info    : Compiling entry function 'adamas_select' for 'sm_90a'\n"
      "ptxas info    : Used 24 registers, used 0 barriers");
  REQUIRE(report.kernels.size() == 2);
  CHECK(report.kernels[0].entry == "adamas_scan");
  CHECK(report.kernels[0].registers == 168);
  CHECK(report.kernels[0].shared_bytes == 49152);
  CHECK(report.kernels[0].stack_bytes == 32);
  CHECK(report.kernels[0].spill_store_bytes == 24);
  CHECK(report.kernels[0].spill_load_bytes == 12);
  CHECK(report.kernels[1].entry == "adamas_select");
  CHECK(report.kernels[1].registers == 24);
  CHECK(report.kernels[1].shared_bytes == 0);
  CHECK(parse_ptxas_log("").kernels.empty());
}
