// A child process with mounts of its own: full disks, read-only and noexec file systems without touching the
// machine's.
#pragma once

#include <functional>
#include <string>

namespace adamas::tests {

/// Collects what went wrong in the child, where the test framework must not run.
class Expectations {
 public:
  void that(bool holds, const std::string& what) {
    if (!holds) failures_ += what + "\n";
  }
  const std::string& failures() const { return failures_; }

 private:
  std::string failures_;
};

/// Runs `body` in a child process, with a fresh tmpfs of these mount options on `folder`, and fails the test
/// case with what it expected in vain. Says so where the system allows no mounts (unprivileged containers).
/// @param body  gets the means to mount the folder anew with other flags (MS_RDONLY, ...)
void in_mount_namespace(const std::string& folder, unsigned long flags, const std::string& options,
                        const std::function<void(Expectations&)>& body);

/// In such a child: the same file system with other flags. @return whether it worked
bool remount(const std::string& folder, unsigned long flags);

}  // namespace adamas::tests
