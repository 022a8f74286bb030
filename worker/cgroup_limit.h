// How much processor time this process's control group grants it.
#pragma once

#include <optional>
#include <string>

namespace lancet {

// Whole processors of the smallest quota from the process's own group up to the root, at least 1; nothing if
// no group sets one. Reads cpu.max (version 2), else cpu.cfs_quota_us and cpu.cfs_period_us (version 1).
// Files that are missing or odd set no limit.
//   proc_cgroup: the process's groups, as the kernel lists them   mount: where the hierarchy is mounted
std::optional<int> CgroupCpus(const std::string& proc_cgroup = "/proc/self/cgroup",
                              const std::string& mount = "/sys/fs/cgroup");

}  // namespace lancet
