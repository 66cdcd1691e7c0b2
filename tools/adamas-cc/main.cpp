// adamas-cc: C++ source text on standard input, the compiled result on standard output, diagnostics on
// standard error. Exit status: 0 compiled, 1 refused by the compiler or linker, 2 wrong use.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/compile/cc_protocol.hpp"
#include "tools/adamas-cc/compile.hpp"
#include "tools/adamas-cc/identity.hpp"
#include "tools/adamas-cc/link.hpp"
#include "tools/adamas-cc/target.hpp"

namespace adamas::tools::cc {
namespace {

constexpr int kCompiled = 0, kRefused = 1, kWrongUse = 2;

struct CommandLine {
  std::string target = "host", triple, cpu, features;
  std::string emit = "so";
  std::vector<std::string> sanitize;
  CompileOptions compile;
  bool frame = false, print_target = false, version = false;
};

void declare(CLI::App& app, CommandLine& line) {
  app.add_option("--target", line.target,
                 "host, x86-64[-v2|-v3|-v4|-CPU], aarch64[-CPU] or ARCH:TUNE:FEATURES (default: host)");
  auto* triple = app.add_option("--triple", line.triple, "LLVM triple, in place of --target; needs --cpu");
  auto* cpu = app.add_option("--cpu", line.cpu, "LLVM CPU name")->needs(triple);
  app.add_option("--features", line.features, "LLVM features above those of --cpu: +avx2,-fma")->needs(cpu);
  triple->needs(cpu)->excludes("--target");
  app.add_option("-O", line.compile.optimize, "optimisation level (default: 2)")->check(CLI::Range(0, 3));
  app.add_flag("--vectorize", line.compile.vectorize, "turn on clang's vectorizers and unroller");
  app.add_option("--sanitize", line.sanitize,
                 "address or thread, undefined; the host process must have the runtimes")
      ->delimiter(',')
      ->check(CLI::IsMember({"address", "thread", "undefined"}));
  app.add_option("--name", line.compile.name, "what diagnostics call the source (default: kernel.cc)");
  app.add_option("--emit", line.emit, "so, asm, llvm or obj (default: so)")
      ->check(CLI::IsMember({"so", "asm", "llvm", "obj"}));
  app.add_flag("--frame", line.frame,
               "end the output with identity, status and lengths, for callers that may lose "
               "the exit status");
  app.add_flag("--print-target", line.print_target, "describe this machine as JSON: triple, cpu, features");
  app.add_flag("--version", line.version, "print name, versions and build id as JSON");
  app.footer("Example: adamas-cc --target x86-64-v3 < kernel.cc > kernel.so");
}

void write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n < 0 && errno != EINTR) {
      std::fprintf(stderr, "error: writing the result: %s\n", std::strerror(errno));
      std::_Exit(kRefused);
    }
    if (n > 0) bytes.remove_prefix(static_cast<std::size_t>(n));
  }
}

std::string read_source() {
  std::string source;
  char block[1 << 16];
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, block, sizeof block);
    if (n > 0) source.append(block, static_cast<std::size_t>(n));
    if (n == 0) return source;
    if (n < 0 && errno != EINTR)
      throw std::runtime_error(std::string("reading the source: ") + std::strerror(errno));
  }
}

Target chosen_target(const CommandLine& line) {
  if (line.triple.empty()) return parse_target(line.target);
  return {line.triple, line.cpu, "", split_features(line.features)};
}

std::string describe_host() {
  const Target host = host_target();
  return nlohmann::ordered_json{{"triple", host.triple}, {"cpu", host.cpu}, {"features", host.features}}
      .dump();
}

/// @return  exit status; the result is in `out`
int build(CommandLine& line, std::string& diagnostics, llvm::SmallVectorImpl<char>& out) {
  CompileOptions& options = line.compile;
  options.target = chosen_target(line);
  for (const std::string& check : line.sanitize) {
    (check == "address" ? options.address : check == "thread" ? options.thread : options.undefined) = true;
  }
  if (options.address && options.thread) throw UsageError("sanitize=address,thread: must not be combined");
  options.output = line.emit == "asm"    ? Output::assembly
                   : line.emit == "llvm" ? Output::llvm_text
                                         : Output::object;
  const std::string source = read_source();
  if (line.emit != "so") return compile(source, options, diagnostics, out) ? kCompiled : kRefused;
  llvm::SmallVector<char, 0> object;
  const bool ok = compile(source, options, diagnostics, object) &&
                  link_shared(object, !line.sanitize.empty(), diagnostics, out);
  return ok ? kCompiled : kRefused;
}

int run(int argc, char** argv) {
  CLI::App app{
      "Compiles one freestanding C++20 source to a shared object that exports its extern \"C\" entries."};
  CommandLine line;
  declare(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kCompiled : kWrongUse;
  }
  if (line.version || line.print_target) {
    write_all((line.version ? identity_json() : describe_host()) + "\n");
    return kCompiled;
  }
  int status = kRefused;
  std::string diagnostics;
  llvm::SmallVector<char, 0> out;
  try {
    status = build(line, diagnostics, out);
  } catch (const UsageError& e) {
    diagnostics += std::string("error: ") + e.what() + "\n";
    status = kWrongUse;
  } catch (const std::exception& e) {
    diagnostics += std::string("error: ") + e.what() + "\n";
  }
  std::fwrite(diagnostics.data(), 1, diagnostics.size(), stderr);
  if (status != kCompiled) out.clear();
  write_all({out.data(), out.size()});
  if (line.frame)
    write_all(runtime::cc_trailer(static_cast<std::uint64_t>(status), out.size(), identity_json()));
  return status;
}

}  // namespace
}  // namespace adamas::tools::cc

int main(int argc, char** argv) {
  const int status = adamas::tools::cc::run(argc, argv);
  std::fflush(nullptr);
  std::_Exit(status);  // LLVM's static destructors cost milliseconds and free what the system frees anyway
}
