// run_subprocess: both streams, limits, and hosts that handle signals and children in their own way.
#include "runtime/compile/subprocess.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "codegen/error.hpp"

using adamas::runtime::run_subprocess;
using namespace std::chrono_literals;

namespace {

constexpr auto kPlenty = 60s;

std::vector<std::string> shell(const std::string& script) { return {"/bin/sh", "-c", script}; }

/// Sets a signal's disposition for as long as it lives.
class SignalDisposition {
 public:
  SignalDisposition(int number, void (*handler)(int)) : number_(number) {
    struct sigaction action{};
    action.sa_handler = handler;
    sigaction(number, &action, &before_);
  }
  ~SignalDisposition() { sigaction(number_, &before_, nullptr); }
  SignalDisposition(const SignalDisposition&) = delete;
  SignalDisposition& operator=(const SignalDisposition&) = delete;

 private:
  int number_;
  struct sigaction before_{};
};

}  // namespace

TEST_CASE("subprocess: streams and status come back") {
  const auto result = run_subprocess(shell("tr a-z A-Z; echo trouble >&2; exit 3"), "text", kPlenty);
  CHECK(result.output == "TEXT");
  CHECK(result.diagnostics == "trouble\n");
  CHECK(result.exit_status == 3);
  CHECK_FALSE(result.timed_out);
}

TEST_CASE("subprocess: megabytes both ways at once do not deadlock") {
  std::string input(5'000'000, 'x');
  for (std::size_t i = 0; i < input.size(); i += 997)
    input[i] = static_cast<char>('a' + i % 26);
  const auto result = run_subprocess(shell("tee /dev/stderr"), input, kPlenty);
  CHECK(result.output == input);
  CHECK(result.diagnostics == input);
}

TEST_CASE("subprocess: a child that reads nothing raises no SIGPIPE") {
  const SignalDisposition fatal(SIGPIPE, SIG_DFL);
  const auto result = run_subprocess(shell("exec 0<&-; echo done"), std::string(4'000'000, 'x'), kPlenty);
  CHECK(result.output == "done\n");
  CHECK(result.exit_status == 0);
}

TEST_CASE("subprocess: the time limit kills a child") {
  const auto start = std::chrono::steady_clock::now();
  const auto result = run_subprocess(shell("echo before; exec sleep 60"), "", 300ms);
  CHECK(result.timed_out);
  CHECK(result.output == "before\n");
  CHECK(result.exit_status == 128 + SIGKILL);
  CHECK(std::chrono::steady_clock::now() - start < 20s);
}

TEST_CASE("subprocess: the time limit holds for a child that closed its streams") {
  const auto result = run_subprocess(shell("exec >&- 2>&- sleep 60"), "", 300ms);
  CHECK(result.timed_out);
}

TEST_CASE("subprocess: a child ended by a signal") {
  CHECK(run_subprocess(shell("kill -TERM $$"), "", kPlenty).exit_status == 128 + SIGTERM);
}

TEST_CASE("subprocess: SIGCHLD ignored by the host loses the status, not the output") {
  const SignalDisposition ignored(SIGCHLD, SIG_IGN);
  const auto result = run_subprocess(shell("echo kept"), "", kPlenty);
  CHECK(result.output == "kept\n");
  CHECK_FALSE(result.timed_out);
  CHECK_FALSE(result.exit_status.has_value());
}

TEST_CASE("subprocess: a host thread that reaps every child") {
  std::atomic<bool> stop{false};
  std::thread reaper([&] {
    while (!stop)
      waitpid(-1, nullptr, WNOHANG);
  });
  for (int i = 0; i < 20; ++i) {
    const auto result = run_subprocess(shell("cat"), "kept", kPlenty);
    CHECK(result.output == "kept");
    CHECK_FALSE(result.timed_out);
  }
  stop = true;
  reaper.join();
}

TEST_CASE("subprocess: the child has default signals, an empty mask and no descriptor of the host") {
  const SignalDisposition ignored(SIGUSR1, SIG_IGN);
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const int inheritable = open("/dev/null", O_RDONLY);  // without O_CLOEXEC
  const auto result =
      run_subprocess(shell("sed -En 's/^Sig(Blk|Ign):.//p' /proc/self/status; test -e /proc/self/fd/" +
                           std::to_string(inheritable) + " && echo leaked"),
                     "", kPlenty);
  close(inheritable);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  unsigned long masked = ~0ul, ignored_signals = ~0ul;
  char rest[16] = {};
  REQUIRE(std::sscanf(result.output.c_str(), "%lx %lx %15s", &masked, &ignored_signals, rest) == 2);
  CHECK(masked == 0);
  CHECK((ignored_signals & 0x7fffffff) == 0);  // signals 32 and 33 are glibc's own
}

TEST_CASE("subprocess: what the host preloads stays in the host") {
  // Set only for this process's children; the dynamic linker read it long ago.
  setenv("LD_PRELOAD", "/nonexistent/preloaded.so", 1);
  const auto result = run_subprocess(shell("echo \"[$LD_PRELOAD]\""), "", kPlenty);
  unsetenv("LD_PRELOAD");
  CHECK(result.output == "[]\n");
}

TEST_CASE("subprocess: standard streams closed in the host") {
  // In a child of its own, since the test's output is needed here.
  const pid_t host = fork();
  REQUIRE(host >= 0);
  if (host == 0) {
    for (int fd : {0, 1, 2})
      close(fd);
    const auto result = run_subprocess(shell("cat; echo trouble >&2"), "text", kPlenty);
    _exit(result.output == "text" && result.diagnostics == "trouble\n" ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(host, &status, 0) == host);
  CHECK(status == 0);
}

TEST_CASE("subprocess: a program that does not exist is an error that names it") {
  try {
    run_subprocess({"/nonexistent/program"}, "", kPlenty);
    FAIL("started a program that does not exist");
  } catch (const adamas::codegen::Error& error) {
    CHECK(error.code() == ADAMAS_UNAVAILABLE);
    CHECK(error.value() == "/nonexistent/program");
  }
}
