// CPUs of a process: affinity mask and control group quotas (versions 1 and 2).
#include "runtime/device/cpu_count.hpp"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>

namespace adamas::runtime {
namespace {

int affinity_cpus() {
  // The mask of a machine with more CPUs than cpu_set_t has room for is longer: EINVAL until it fits.
  for (int cpus = CPU_SETSIZE; cpus <= (1 << 16); cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus),
                                                               [](cpu_set_t* p) { CPU_FREE(p); });
    if (set && ::sched_getaffinity(0, CPU_ALLOC_SIZE(cpus), set.get()) == 0)
      return CPU_COUNT_S(CPU_ALLOC_SIZE(cpus), set.get());
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::string file_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Quota and period in microseconds -> whole CPUs; nothing for "max" (version 2) and -1 (version 1).
std::optional<int> cpus_of(const std::string& quota_and_period) {
  std::istringstream text(quota_and_period);
  long long quota = 0, period = 0;
  if (!(text >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<int>(std::clamp((quota + period - 1) / period, 1LL, 1LL << 16));
}

std::optional<int> quota_in(const std::string& folder) {
  if (const auto cpus = cpus_of(file_text(folder + "/cpu.max"))) return cpus;
  return cpus_of(file_text(folder + "/cpu.cfs_quota_us") + " " + file_text(folder + "/cpu.cfs_period_us"));
}

/// "cpu,cpuacct" names the controller cpu; "" is version 2, which has all in one tree.
bool names_cpu(std::string_view controllers) {
  std::istringstream list{std::string(controllers)};
  for (std::string one; std::getline(list, one, ',');)
    if (one == "cpu") return true;
  return controllers.empty();
}

}  // namespace

int control_group_cpus(std::string_view groups, const std::string& mount_point) {
  int fewest = 0;
  std::istringstream lines{std::string(groups)};
  for (std::string line; std::getline(lines, line);) {  // "4:cpu,cpuacct:/path", "0::/path"
    const std::size_t first = line.find(':');
    const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!names_cpu(controllers)) continue;
    const std::string tree = controllers.empty() ? mount_point : mount_point + "/" + controllers;
    // A limit anywhere above holds too. In a container the path may not exist below the mount point; its root
    // does.
    for (std::string path = line.substr(second + 1);; path.resize(path.rfind('/'))) {
      if (path == "/") path.clear();
      if (const auto cpus = quota_in(tree + path)) fewest = fewest == 0 ? *cpus : std::min(fewest, *cpus);
      if (path.find('/') == path.npos) break;
    }
  }
  return fewest;
}

int usable_cpus() {
  const int cpus = std::max(1, affinity_cpus());
  const int quota = control_group_cpus(file_text("/proc/self/cgroup"), "/sys/fs/cgroup");
  return quota == 0 ? cpus : std::min(cpus, quota);
}

}  // namespace adamas::runtime
