// posix_spawn, three streams and one poll loop.
#include "runtime/compile/subprocess.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "codegen/error.hpp"
#include "runtime/file_descriptor.hpp"

namespace adamas::runtime {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail_start(const std::string& program, const char* step, int error) {
  throw codegen::Error(ADAMAS_UNAVAILABLE, "program", program,
                       std::string("could not be started: ") + step + ": " + std::strerror(error));
}

struct Channel {
  FileDescriptor ours, theirs;
};

/// The child's ends are kept off descriptors 0 to 2 (free when the host has closed its own), so that moving
/// one onto its place never overwrites another.
FileDescriptor above_standard_streams(FileDescriptor fd, const std::string& program) {
  if (fd.get() > STDERR_FILENO) return fd;
  FileDescriptor moved(fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!moved) fail_start(program, "fcntl", errno);
  return moved;
}

Channel output_channel(const std::string& program) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) fail_start(program, "pipe2", errno);
  Channel channel{FileDescriptor(fds[0]), FileDescriptor(fds[1])};
  channel.theirs = above_standard_streams(std::move(channel.theirs), program);
  fcntl(channel.ours.get(), F_SETFL, O_NONBLOCK);
  return channel;
}

/// A socket pair and not a pipe: writing to a child that has gone must not raise SIGPIPE in the host.
Channel input_channel(const std::string& program) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) fail_start(program, "socketpair", errno);
  Channel channel{FileDescriptor(fds[0]), FileDescriptor(fds[1])};
  channel.theirs = above_standard_streams(std::move(channel.theirs), program);
  shutdown(channel.ours.get(), SHUT_RD);
  return channel;
}

/// The attributes and file actions of one posix_spawn.
class SpawnPlan {
 public:
  SpawnPlan(int in, int out, int err) {
    posix_spawnattr_init(&attributes_);
    posix_spawn_file_actions_init(&actions_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawn_file_actions_adddup2(&actions_, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions_, err, STDERR_FILENO);
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
    // What the host forgot to mark close-on-exec; before glibc 2.34 the child holds it for as long as it
    // runs.
    posix_spawn_file_actions_addclosefrom_np(&actions_, STDERR_FILENO + 1);
#endif
#endif
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;
  SpawnPlan& operator=(const SpawnPlan&) = delete;

  pid_t spawn(const std::vector<std::string>& argv) {
    std::vector<char*> arguments, environment;
    for (const std::string& argument : argv)
      arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    for (char** variable = environ; variable && *variable; ++variable) {
      if (std::strncmp(*variable, "LD_PRELOAD=", 11) != 0) environment.push_back(*variable);
    }
    environment.push_back(nullptr);
    pid_t child = 0;
    const int error =
        posix_spawn(&child, argv[0].c_str(), &actions_, &attributes_, arguments.data(), environment.data());
    if (error != 0) fail_start(argv[0], "posix_spawn", error);
    return child;
  }

 private:
  posix_spawnattr_t attributes_;
  posix_spawn_file_actions_t actions_;
};

/// A child that the host may reap at any moment. A process descriptor, where the kernel has them (5.4), keeps
/// us from signalling or reaping another process that got the same number.
class Child {
 public:
  explicit Child(pid_t pid) : pid_(pid), descriptor_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

  void kill() {
    if (descriptor_) {
      syscall(SYS_pidfd_send_signal, descriptor_.get(), SIGKILL, nullptr, 0);
    } else {
      ::kill(pid_, SIGKILL);
    }
  }

  /// Waits for the end and reaps.
  /// @return  false when it still runs at the deadline
  bool wait_until(Clock::time_point deadline) {
    while (!try_reap()) {
      if (Clock::now() >= deadline) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    return true;
  }

  std::optional<int> exit_status() const { return exit_status_; }

 private:
  /// @return  true when the child is gone, reaped by us or by the host
  bool try_reap() {
    siginfo_t end{};
    const int result = descriptor_
                           ? waitid(P_PIDFD, static_cast<id_t>(descriptor_.get()), &end, WEXITED | WNOHANG)
                           : waitid(P_PID, static_cast<id_t>(pid_), &end, WEXITED | WNOHANG);
    if (result != 0) return errno == ECHILD;
    if (end.si_pid == 0) return false;
    exit_status_ = end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
    return true;
  }

  pid_t pid_;
  FileDescriptor descriptor_;
  std::optional<int> exit_status_;
};

/// Our ends of the child's streams. A stream is dropped once it is at its end.
class Streams {
 public:
  Streams(FileDescriptor in, FileDescriptor out, FileDescriptor err, std::string_view input)
      : in_(std::move(in)), out_(std::move(out)), err_(std::move(err)), input_(input) {}

  /// @return  false when the child still holds its outputs open at the deadline
  bool transfer_until(Clock::time_point deadline, SubprocessResult& result) {
    while (out_ || err_) {
      // poll ignores the entries of dropped streams, whose descriptor is -1.
      pollfd waits[3] = {{in_.get(), POLLOUT, 0}, {out_.get(), POLLIN, 0}, {err_.get(), POLLIN, 0}};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) return false;
      const int ready = poll(waits, 3, static_cast<int>(std::min<std::int64_t>(left, 60'000)));
      if (ready < 0 && errno != EINTR) return false;
      if (ready <= 0) continue;
      if (waits[0].revents) send_some();
      if (waits[1].revents) receive_some(out_, result.output);
      if (waits[2].revents) receive_some(err_, result.diagnostics);
    }
    return true;
  }

 private:
  void send_some() {
    const ssize_t n = send(in_.get(), input_.data(), input_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) input_.remove_prefix(static_cast<std::size_t>(n));
    const bool child_stopped_reading = n < 0 && errno != EAGAIN && errno != EINTR;
    if (input_.empty() || child_stopped_reading) in_ = FileDescriptor();
  }

  static void receive_some(FileDescriptor& from, std::string& to) {
    std::array<char, 1 << 16> block;
    const ssize_t n = read(from.get(), block.data(), block.size());
    if (n > 0) to.append(block.data(), static_cast<std::size_t>(n));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) from = FileDescriptor();
  }

  FileDescriptor in_, out_, err_;
  std::string_view input_;
};

}  // namespace

SubprocessResult run_subprocess(const std::vector<std::string>& argv, std::string_view input,
                                std::chrono::milliseconds time_limit) {
  const Clock::time_point deadline = Clock::now() + time_limit;
  Channel in = input_channel(argv[0]), out = output_channel(argv[0]), err = output_channel(argv[0]);
  Child child(SpawnPlan(in.theirs.get(), out.theirs.get(), err.theirs.get()).spawn(argv));
  // Only the child may hold these, or the end of its streams would never be seen.
  for (Channel* channel : {&in, &out, &err})
    channel->theirs = FileDescriptor();

  SubprocessResult result;
  Streams streams(std::move(in.ours), std::move(out.ours), std::move(err.ours), input);
  result.timed_out = !streams.transfer_until(deadline, result) || !child.wait_until(deadline);
  if (result.timed_out) {
    child.kill();
    child.wait_until(Clock::now() + std::chrono::seconds(1));
  }
  result.exit_status = child.exit_status();
  return result;
}

}  // namespace adamas::runtime
