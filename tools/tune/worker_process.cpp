// A worker's process: see worker_process.hpp.
#include "tools/tune/worker_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "codegen/error.hpp"
#include "codegen/format.hpp"

extern char** environ;

namespace adamas::tools {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail_start(const char* step, int error) {
  throw codegen::Error(ADAMAS_UNAVAILABLE, "worker", "tune-worker",
                       fmt::format("could not be started: {}: {}", step, std::strerror(error)));
}

}  // namespace

WorkerProcess::WorkerProcess(const std::string& program) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) fail_start("socketpair", errno);
  channel_ = runtime::FileDescriptor(ends[0]);
  const runtime::FileDescriptor theirs(ends[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  // A group of its own: the Ctrl-C that ends a search must not end a measurement.
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  std::string name = program, command = "tune-worker";
  char* const arguments[] = {name.data(), command.data(), nullptr};
  const int error = posix_spawn(&pid_, program.c_str(), &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    pid_ = 0;
    fail_start("posix_spawn", error);
  }
}

WorkerProcess::~WorkerProcess() { end(""); }

nlohmann::json WorkerProcess::end(const std::string& what) {
  std::string how;
  if (pid_ > 0) {
    int status = 0;
    // One that has crashed is gone already, and says how.
    if (waitpid(pid_, &status, WNOHANG) != pid_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, &status, 0);
    } else if (WIFSIGNALED(status)) {
      how = fmt::format(" ({})", strsignal(WTERMSIG(status)));
    }
    pid_ = 0;
  }
  return {{"error", what + how}};
}

nlohmann::json WorkerProcess::ask(const nlohmann::json& request, std::chrono::milliseconds limit) {
  if (!alive()) return {{"error", "the worker has ended"}};
  const std::string line = request.dump() + '\n';
  for (std::size_t sent = 0; sent < line.size();) {
    const ssize_t n = send(channel_.get(), line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return end("crashed");
    sent += static_cast<std::size_t>(n);
  }
  const auto deadline = Clock::now() + limit;
  for (;;) {
    if (const std::size_t newline = received_.find('\n'); newline != std::string::npos) {
      const std::string answer = received_.substr(0, newline);
      received_.erase(0, newline + 1);
      nlohmann::json parsed = nlohmann::json::parse(answer, nullptr, false);
      return parsed.is_object() ? parsed : end("answered what is no JSON object");
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return end(fmt::format("did not finish within {:.1f} s", limit.count() / 1e3));
    pollfd waiting{channel_.get(), POLLIN, 0};
    if (poll(&waiting, 1, static_cast<int>(left.count())) <= 0) continue;
    char bytes[4096];
    const ssize_t n = read(channel_.get(), bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) return end("crashed");
    received_.append(bytes, static_cast<std::size_t>(n));
  }
}

}  // namespace adamas::tools
