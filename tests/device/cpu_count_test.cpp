// "One thread a core" under affinity masks and control group quotas.
#include "runtime/device/cpu_count.hpp"

#include <doctest/doctest.h>
#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

using adamas::runtime::control_group_cpus;
using adamas::runtime::usable_cpus;
namespace fs = std::filesystem;

namespace {

/// A tree that looks like /sys/fs/cgroup.
class GroupTree {
 public:
  GroupTree() {
    std::string pattern = (fs::temp_directory_path() / "adamas-cgroup-test-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
  }
  ~GroupTree() { fs::remove_all(root_); }
  GroupTree(const GroupTree&) = delete;
  GroupTree& operator=(const GroupTree&) = delete;

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << '\n';
  }
  std::string root() const { return root_.string(); }

 private:
  fs::path root_;
};

}  // namespace

TEST_CASE("no quota anywhere") {
  const GroupTree tree;
  CHECK(control_group_cpus("0::/\n", tree.root()) == 0);
  CHECK(control_group_cpus("", tree.root()) == 0);
  CHECK(control_group_cpus("nonsense\n\n:\n", tree.root()) == 0);
  tree.write("a/cpu.max", "max 100000");
  CHECK(control_group_cpus("0::/a\n", tree.root()) == 0);
}

TEST_CASE("version 2: the tightest quota up to the root, rounded up") {
  const GroupTree tree;
  tree.write("pod/cpu.max", "250000 100000");
  tree.write("pod/box/cpu.max", "400000 100000");
  CHECK(control_group_cpus("0::/pod/box\n", tree.root()) == 3);
  CHECK(control_group_cpus("0::/pod\n", tree.root()) == 3);
  CHECK(control_group_cpus("0::/other\n", tree.root()) == 0);
  tree.write("pod/box/cpu.max", "50000 100000");
  CHECK(control_group_cpus("0::/pod/box\n", tree.root()) == 1);
}

TEST_CASE("version 2 in a container whose path lies above what it sees") {
  const GroupTree tree;
  tree.write("cpu.max", "200000 100000");
  CHECK(control_group_cpus("0::/\n", tree.root()) == 2);
  CHECK(control_group_cpus("0::/docker/1234\n", tree.root()) == 2);
}

TEST_CASE("version 1: the controller named cpu, alone or with others") {
  const GroupTree tree;
  tree.write("cpu,cpuacct/box/cpu.cfs_quota_us", "150000");
  tree.write("cpu,cpuacct/box/cpu.cfs_period_us", "100000");
  const std::string groups = "7:cpuset:/box\n4:cpu,cpuacct:/box\n3:memory:/box\n0::/box\n";
  CHECK(control_group_cpus(groups, tree.root()) == 2);
  tree.write("cpu,cpuacct/box/cpu.cfs_quota_us", "-1");
  CHECK(control_group_cpus(groups, tree.root()) == 0);
  // cpuset's quota-like files do not exist, and its name only begins like cpu.
  tree.write("cpuset/box/cpu.cfs_quota_us", "100000");
  tree.write("cpuset/box/cpu.cfs_period_us", "100000");
  CHECK(control_group_cpus(groups, tree.root()) == 0);
}

TEST_CASE("the affinity mask counts") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cpus() <= CPU_COUNT(&before));
  int first = 0;
  while (!CPU_ISSET(first, &before))
    ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  int counted = 0;
  // On a thread of its own: the mask dies with it.
  std::thread([&] {
    if (::sched_setaffinity(0, sizeof one, &one) == 0) counted = usable_cpus();
  }).join();
  CHECK(counted == 1);
}
