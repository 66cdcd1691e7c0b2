// The CPU compiler end to end: adamas-cc compiles, the result is loaded and run, and every failure names its
// way out.
#include "runtime/compile/cpu_compiler.hpp"

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <elf.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "codegen/generator.hpp"
#include "runtime/compile/cpu_target.hpp"
#include "runtime/compile/subprocess.hpp"

using namespace adamas::runtime;
using adamas::codegen::Error;
namespace codegen = adamas::codegen;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// Sixteen lanes: on AVX-512 one register, on AVX2 two, on SSE and NEON four.
constexpr char kAxpy[] = R"(
typedef float v16 __attribute__((vector_size(64), aligned(4)));
extern "C" __attribute__((visibility("default"))) void axpy(float* y, const float* x, float a, long n) {
  long i = 0;
  for (; i + 16 <= n; i += 16) *(v16*)(y + i) += a * *(const v16*)(x + i);
  for (; i < n; ++i) y[i] += a * x[i];
}
)";

constexpr char kTableLookup[] = R"(
typedef __attribute__((neon_vector_type(16))) signed char Bytes;
extern "C" __attribute__((visibility("default"))) void look_up(const Bytes* table, Bytes* index) {
  *index = (Bytes)__builtin_neon_vqtbl1q_v(*table, *index, 32);
}
)";

CompileRequest request_for(const std::string& source, const std::string& target = "x86-64-v2") {
  return {"unit.cc", source, target, {}, "head_dim=64"};
}

/// Without the instrumented mode that the sanitizer builds run all tests in.
std::unique_ptr<Compiler> plain_compiler() {
  CpuCompilerConfig config = CpuCompilerConfig::from_environment();
  config.sanitize.clear();
  return make_cpu_compiler(config);
}

std::string text_of(const CompileResult& result) {
  return {reinterpret_cast<const char*>(result.binary.data()), result.binary.size()};
}

std::string assembly(const std::string& source, const std::string& target,
                     std::vector<std::string> options = {}) {
  CompileRequest request = request_for(source, target);
  request.options = std::move(options);
  request.options.push_back("--emit=asm");
  return text_of(plain_compiler()->compile(request));
}

/// A shared object loaded from memory.
class Loaded {
 public:
  explicit Loaded(const CompileResult& result) {
    const int fd = memfd_create("kernel", MFD_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE(write(fd, result.binary.data(), result.binary.size()) ==
            static_cast<ssize_t>(result.binary.size()));
    handle_ = dlopen(("/proc/self/fd/" + std::to_string(fd)).c_str(), RTLD_NOW | RTLD_LOCAL);
    const std::string failure = handle_ ? "" : dlerror();
    close(fd);
    REQUIRE_MESSAGE(handle_ != nullptr, failure);
  }
  ~Loaded() {
    if (handle_) dlclose(handle_);
  }
  Loaded(const Loaded&) = delete;
  Loaded& operator=(const Loaded&) = delete;

  bool exports(const char* name) const { return dlsym(handle_, name) != nullptr; }

  template <typename Function>
  Function* entry(const char* name) const {
    REQUIRE(exports(name));
    return reinterpret_cast<Function*>(dlsym(handle_, name));
  }

 private:
  void* handle_ = nullptr;
};

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (fs::temp_directory_path() / "adamas-test.XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// Sets a variable for as long as it lives.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() {
    if (before_) {
      setenv(name_, before_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

/// An adamas-cc that behaves badly: a shell script.
std::string script(const TemporaryFolder& folder, const std::string& body) {
  const fs::path file = folder.path() / "adamas-cc";
  std::ofstream(file) << "#!/bin/sh\n" << body << "\n";
  chmod(file.c_str(), 0700);
  return file.string();
}

std::string read_file(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

template <typename Exception = Error, typename Function>
Exception caught(Function function) {
  try {
    function();
  } catch (const Exception& error) {
    return error;
  }
  FAIL("no such error was thrown");
  std::abort();
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

std::uint16_t elf_machine(const CompileResult& result) {
  Elf64_Ehdr header;
  REQUIRE(result.binary.size() > sizeof header);
  std::memcpy(&header, result.binary.data(), sizeof header);
  REQUIRE(std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0);
  CHECK(header.e_type == ET_DYN);
  return header.e_machine;
}

void check_axpy(const CompileResult& result) {
  const Loaded kernel(result);
  auto* axpy = kernel.entry<void(float*, const float*, float, long)>("axpy");
  std::array<float, 37> x, y;
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(i);
    y[i] = 1;
  }
  axpy(y.data(), x.data(), 2, 37);
  for (std::size_t i = 0; i < x.size(); ++i)
    CHECK(y[i] == 1 + 2 * static_cast<float>(i));
}

}  // namespace

TEST_CASE("cpu compiler: usable in this build") {
  const auto compiler = plain_compiler();
  CHECK(compiler->unavailable() == "");
  CHECK(compiler->build_id().size() == 16);
  CHECK(compiler->implied_options().empty());
}

TEST_CASE("cpu compiler: compiles for every target of this machine, and the result runs") {
  for (const std::string& target : runnable_cpu_targets()) {
    CAPTURE(target);
    const auto compiler = plain_compiler();
    const CompileResult result = compiler->compile(request_for(kAxpy, target));
    CHECK(result.log == "");
    CHECK(contains(result.compiler, "adamas-cc"));
    CHECK(contains(result.compiler, compiler->build_id()));
    CHECK(result.milliseconds > 0);
    check_axpy(result);
  }
  check_axpy(plain_compiler()->compile(request_for(kAxpy, "host")));
}

TEST_CASE("cpu compiler: same source and options give the same bytes") {
  const auto first = plain_compiler()->compile(request_for(kAxpy, "host"));
  CHECK(first.binary == plain_compiler()->compile(request_for(kAxpy, "host")).binary);
  CHECK(first.binary == plain_compiler()->compile(request_for(kAxpy, host_cpu_target())).binary);
  const fs::path before = fs::current_path();
  fs::current_path("/");
  CHECK(first.binary == plain_compiler()->compile(request_for(kAxpy, "host")).binary);
  fs::current_path(before);
}

TEST_CASE("cpu compiler: cross targets give code for the right machine") {
  const auto compiler = plain_compiler();
  for (const char* target : {"x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-icelake-server",
                             "x86-64:znver4:+sse3,+ssse3"}) {
    CAPTURE(target);
    CHECK(elf_machine(compiler->compile(request_for(kAxpy, target))) == EM_X86_64);
  }
  for (const char* target : {"aarch64", "aarch64-neoverse-v1", "aarch64:neoverse-v1:+fullfp16,+dotprod"}) {
    CAPTURE(target);
    CHECK(elf_machine(compiler->compile(request_for(kAxpy, target))) == EM_AARCH64);
    // Table lookups of NEON, which is there whatever else a target names.
    CHECK(elf_machine(compiler->compile(request_for(kTableLookup, target))) == EM_AARCH64);
  }
}

TEST_CASE("cpu compiler: a target's code uses its registers and no others") {
  const std::string v2 = assembly(kAxpy, "x86-64-v2"), v3 = assembly(kAxpy, "x86-64-v3");
  const std::string v4 = assembly(kAxpy, "x86-64-v4"), icelake = assembly(kAxpy, "x86-64-icelake-server");
  CHECK(contains(v2, "xmm"));
  CHECK_FALSE(contains(v2, "ymm"));
  CHECK_FALSE(contains(v2, "\tv"));  // AVX's instructions begin with v
  CHECK(contains(v3, "ymm"));
  CHECK_FALSE(contains(v3, "zmm"));
  CHECK(contains(v4, "zmm"));
  CHECK(contains(icelake, "zmm"));  // its tuning would halve them
  // A CPU name in the exact form lends timings, never features.
  CHECK_FALSE(contains(assembly(kAxpy, "x86-64:znver4:+sse3,+ssse3,+sse4.1,+sse4.2,+avx"), "zmm"));
  CHECK_FALSE(contains(assembly(kAxpy, "x86-64:znver4:+sse3,+ssse3"), "ymm"));
  CHECK(contains(assembly(kAxpy, "aarch64"), ".4s"));
  // The scan is table lookups.
  const auto select_unit = [](const char* target) {
    const codegen::Generator& generator = codegen::cpu_generator();
    const codegen::Spec spec = codegen::Spec::parse("head_dim=64");
    return generator.emit(spec, generator.default_tuning(spec, target), target, codegen::Unit::select);
  };
  for (const char* target : {"aarch64", "aarch64-neoverse-v1", "aarch64:neoverse-v1:+fullfp16,+dotprod"})
    CHECK(contains(assembly(select_unit(target), target), "\ttbl\t"));
  CHECK(contains(assembly(select_unit("x86-64-v3"), "x86-64-v3"), "\tvpshufb\t"));
}

TEST_CASE("cpu compiler: products and sums are not fused unless the source says so") {
  CHECK_FALSE(contains(assembly(kAxpy, "x86-64-v3"), "vfmadd"));
  CHECK(contains(assembly(std::string("#pragma clang fp contract(fast)\n") + kAxpy, "x86-64-v3"), "vfmadd"));
}

TEST_CASE("cpu compiler: vectorizers are off unless asked for") {
  constexpr char kLoop[] = R"(
extern "C" __attribute__((visibility("default")))
void add(int* __restrict y, const int* __restrict x, long n) {
  for (long i = 0; i < n; ++i) y[i] += x[i];
})";
  CHECK_FALSE(contains(assembly(kLoop, "x86-64-v3"), "ymm"));
  CHECK(contains(assembly(kLoop, "x86-64-v3", {"--vectorize"}), "ymm"));
}

TEST_CASE("cpu compiler: only marked extern \"C\" functions are exported; others may not be marked") {
  const auto result = plain_compiler()->compile(request_for(
      R"(extern "C" int hidden() { return 4; }
         int mangled() { return 5; }
         extern "C" __attribute__((visibility("default"))) int entry() { return hidden() + mangled(); })"));
  const Loaded kernel(result);
  CHECK(kernel.entry<int()>("entry")() == 9);
  CHECK_FALSE(kernel.exports("hidden"));
  CHECK_FALSE(kernel.exports("_Z7mangledv"));

  const TemporaryFolder folder;
  const Environment dump("ADAMAS_DUMP_DIR", folder.path());
  const auto error = caught<CompileError>([] {
    plain_compiler()->compile(
        request_for("__attribute__((visibility(\"default\"))) int mangled() { return 5; }"));
  });
  CHECK(contains(error.log(), "_Z7mangledv"));
}

TEST_CASE("cpu compiler: libc's memory functions may be needed, anything else is refused by name") {
  const auto result = plain_compiler()->compile(request_for(R"(
extern "C" __attribute__((visibility("default")))
void fill(char* p, unsigned long n) { __builtin_memset(p, 7, n); }
extern "C" __attribute__((visibility("default"))) float root(float x) { return __builtin_sqrtf(x); })"));
  const Loaded kernel(result);
  char bytes[3] = {1, 1, 1};
  kernel.entry<void(char*, unsigned long)>("fill")(bytes, 2);
  CHECK(std::string(bytes, 3) == "\7\7\1");
  CHECK(kernel.entry<float(float)>("root")(9.0f) == 3.0f);

  const TemporaryFolder folder;
  const Environment dump("ADAMAS_DUMP_DIR", folder.path());
  const auto error = caught<CompileError>([] {
    plain_compiler()->compile(request_for(R"(
extern "C" float expf(float);
extern "C" __attribute__((visibility("default"))) float entry(float x) { return expf(x); })"));
  });
  CHECK(contains(error.log(), "symbol expf: is undefined"));
}

TEST_CASE("cpu compiler: nothing of the machine's disk can be included") {
  const TemporaryFolder folder;
  const Environment dump("ADAMAS_DUMP_DIR", folder.path());
  for (const char* include : {"#include <stdint.h>\n", "#include \"/etc/passwd\"\n"}) {
    const auto error = caught<CompileError>([&] { plain_compiler()->compile(request_for(include)); });
    CHECK(contains(error.log(), "file not found"));
  }
}

TEST_CASE("cpu compiler: a compile error carries log, spec, options and the dumped source") {
  const TemporaryFolder folder;
  const Environment dump("ADAMAS_DUMP_DIR", folder.path() / "new" / "place");
  CompileRequest request = request_for("int x = ;\n");
  request.options = {"-O1"};
  const auto error = caught<CompileError>([&] { plain_compiler()->compile(request); });
  CHECK(error.code() == ADAMAS_COMPILE_FAILED);
  CHECK(contains(error.log(), "unit.cc:1:9: error: expected expression"));
  CHECK(error.spec() == "head_dim=64");
  CHECK(error.options() == std::vector<std::string>{"-O1"});
  for (const std::string& part : {error.log(), error.spec(), error.dumped_source(), std::string("-O1")}) {
    CHECK(contains(error.what(), part));
  }
  const std::string dumped = read_file(error.dumped_source());
  CHECK(dumped.rfind("int x = ;\n", 0) == 0);  // line numbers hold
  CHECK(contains(dumped, "// spec: head_dim=64"));
  struct stat facts;
  REQUIRE(stat((folder.path() / "new" / "place").c_str(), &facts) == 0);
  CHECK((facts.st_mode & 0777) == 0700);
}

TEST_CASE("cpu compiler: a dump that cannot be written is told, and the error stays") {
  const Environment dump("ADAMAS_DUMP_DIR", "/proc/no/such/place");
  const auto error = caught<CompileError>([] { plain_compiler()->compile(request_for("int x = ;\n")); });
  CHECK(error.dumped_source() == "");
  CHECK(contains(error.what(), "could not be written"));
  CHECK(contains(error.what(), "/proc/no/such/place"));
  CHECK(contains(error.what(), "expected expression"));
}

TEST_CASE("cpu compiler: an unknown target or option is refused before the source is read") {
  const auto error = caught([] { plain_compiler()->compile(request_for(kAxpy, "sparc")); });
  CHECK(error.code() == ADAMAS_INVALID_ARGUMENT);
  CHECK(error.value() == "sparc");
  CHECK(contains(error.what(), "x86-64[-v2|-v3|-v4|-CPU]"));
}

TEST_CASE("cpu compiler: a missing adamas-cc is an error with the fix") {
  CpuCompilerConfig config;
  config.program = "/nonexistent/adamas-cc";
  const auto compiler = make_cpu_compiler(config);
  CHECK(contains(compiler->unavailable(), "/nonexistent/adamas-cc"));
  const auto error = caught([&] { compiler->compile(request_for(kAxpy)); });
  CHECK(error.code() == ADAMAS_UNAVAILABLE);
  CHECK(contains(error.what(), "ADAMAS_CC"));
}

TEST_CASE("cpu compiler: ADAMAS_CC names the program") {
  const Environment program("ADAMAS_CC", "/nonexistent/elsewhere");
  CHECK(contains(make_cpu_compiler()->unavailable(), "/nonexistent/elsewhere"));
}

TEST_CASE("cpu compiler: a program that dies, lies or stops early gives no kernel") {
  struct Case {
    const char* body;
    const char* expected;
    adamas_status code;
  };
  for (const Case& bad :
       {Case{"cat >/dev/null; echo not a frame", "exit status is 0", ADAMAS_COMPILE_FAILED},
        Case{"kill -SEGV $$", "signal 11", ADAMAS_COMPILE_FAILED},
        Case{"echo libLLVM.so.19.1: cannot open >&2; exit 127", "apt-get install", ADAMAS_UNAVAILABLE},
        Case{"exit 0", "ended without a result", ADAMAS_COMPILE_FAILED}}) {
    CAPTURE(bad.body);
    const TemporaryFolder folder;
    CpuCompilerConfig config;
    config.program = script(folder, bad.body);
    const auto error = caught([&] { make_cpu_compiler(config)->compile(request_for(kAxpy)); });
    CHECK(error.code() == bad.code);
    CHECK(contains(error.what(), bad.expected));
    CHECK(contains(make_cpu_compiler(config)->unavailable(), "did not tell its version"));
  }
}

TEST_CASE("cpu compiler: a compile that takes too long is killed") {
  const TemporaryFolder folder;
  CpuCompilerConfig config;
  config.program = script(folder, "exec sleep 60");
  config.time_limit = 300ms;
  const auto error = caught([&] { make_cpu_compiler(config)->compile(request_for(kAxpy)); });
  CHECK(error.code() == ADAMAS_COMPILE_FAILED);
  CHECK(contains(error.what(), "killed after 300 ms"));
}

TEST_CASE("cpu compiler: a host that ignores SIGCHLD gets results and errors alike") {
  const TemporaryFolder folder;
  const Environment dump("ADAMAS_DUMP_DIR", folder.path());
  void (*before)(int) = signal(SIGCHLD, SIG_IGN);
  const auto result = plain_compiler()->compile(request_for(kAxpy));
  const auto error = caught<CompileError>([] { plain_compiler()->compile(request_for("int x = ;\n")); });
  signal(SIGCHLD, before);
  CHECK(elf_machine(result) == EM_X86_64);
  CHECK(contains(error.log(), "expected expression"));
}

TEST_CASE("cpu compiler: two threads compile at once with one compiler") {
  const auto compiler = plain_compiler();
  const std::vector<std::byte> expected = compiler->compile(request_for(kAxpy)).binary;
  std::array<std::vector<std::byte>, 2> results;
  {
    std::vector<std::thread> threads;
    for (auto& result : results) {
      threads.emplace_back([&] {
        for (int i = 0; i < 3; ++i)
          result = compiler->compile(request_for(kAxpy)).binary;
      });
    }
    for (std::thread& thread : threads)
      thread.join();
  }
  for (const auto& result : results)
    CHECK(result == expected);
}

TEST_CASE("cpu compiler: the instrumented mode shows in the options and in the code") {
  const Environment mode("ADAMAS_CC_SANITIZE", "address,undefined");
  const auto compiler = make_cpu_compiler();
  CHECK(compiler->implied_options() == std::vector<std::string>{"--sanitize=address,undefined"});
  const std::string binary = text_of(compiler->compile(request_for(kAxpy)));
  CHECK(contains(binary, "__asan_report_load"));
  CHECK(contains(binary, "__ubsan_handle_"));
}

// Only a host that has the runtime can load instrumented code: the asan build.
#if defined(__SANITIZE_ADDRESS__)
#define ADAMAS_TEST_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADAMAS_TEST_HAS_ASAN 1
#endif
#endif
#if defined(ADAMAS_TEST_HAS_ASAN)
TEST_CASE("cpu compiler: an instrumented kernel runs in an instrumented host, and its overrun is caught") {
  CompileRequest request = request_for(kAxpy);
  request.options = {"--sanitize=address"};
  const CompileResult result = plain_compiler()->compile(request);
  check_axpy(result);

  const Loaded kernel(result);
  const pid_t overrunning = fork();
  REQUIRE(overrunning >= 0);
  if (overrunning == 0) {
    const std::vector<float> x(8, 1.0f);
    std::vector<float> y(7);
    kernel.entry<void(float*, const float*, float, long)>("axpy")(y.data(), x.data(), 1, 8);
    _exit(0);  // the overrun went unseen
  }
  int status = 0;
  REQUIRE(waitpid(overrunning, &status, 0) == overrunning);
  CHECK(status != 0);
}
#endif
