// How many CPUs this process may use: what "one thread a core" means inside a container.
#pragma once

#include <string>
#include <string_view>

namespace adamas::runtime {

/// CPUs of this thread's affinity mask, no more than the control groups' CPU quota allows; at least 1.
int usable_cpus();

/// The smallest CPU quota on the way from the process's control group to the root, rounded up; 0 = none is
/// set.
/// @param groups      text of /proc/self/cgroup
/// @param mount_point of the control group file systems: "/sys/fs/cgroup"
int control_group_cpus(std::string_view groups, const std::string& mount_point);

}  // namespace adamas::runtime
