// See mount_namespace.hpp.
#include "tests/cache/mount_namespace.hpp"

#include <doctest/doctest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <exception>

namespace adamas::tests {
namespace {

constexpr int kNoMounts = 77;

bool mount_own(const std::string& folder, unsigned long flags, const std::string& options) {
  return (::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
         ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("tmpfs", folder.c_str(), "tmpfs", flags, options.c_str()) == 0;
}

}  // namespace

void in_mount_namespace(const std::string& folder, unsigned long flags, const std::string& options,
                        const std::function<void(Expectations&)>& body) {
  int channel[2];
  REQUIRE(::pipe(channel) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!mount_own(folder, flags, options)) ::_exit(kNoMounts);
    Expectations expect;
    try {
      body(expect);
    } catch (const std::exception& error) {
      expect.that(false, error.what());
    }
    const std::string& text = expect.failures();
    const bool told = ::write(channel[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::_exit(text.empty() && told ? 0 : 1);
  }
  ::close(channel[1]);
  std::string failures;
  char block[1024];
  for (ssize_t n; (n = ::read(channel[0], block, sizeof block)) > 0;)
    failures.append(block, static_cast<std::size_t>(n));
  ::close(channel[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kNoMounts) {
    MESSAGE("no mounts are allowed here: not tested");
    return;
  }
  CAPTURE(failures);
  CHECK(failures.empty());
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

bool remount(const std::string& folder, unsigned long flags) {
  return ::mount("none", folder.c_str(), nullptr, MS_REMOUNT | flags, nullptr) == 0;
}

}  // namespace adamas::tests
