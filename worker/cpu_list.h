// Sets of processors written as people write them: "0-3,5".
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

// Ascending and without repeats. InvalidArgument names the part that is not "n" or "n-m" with 0 <= n <= m <
// 1024.
absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view text);

// Confines the calling thread, and every thread that it starts later, to these processors. InvalidArgument if
// the machine lets this process use none of them.
absl::Status PinToCpus(const std::vector<int>& cpus);

// Processors that this process may use: those that its affinity names, and no more than the quota of its
// control group pays for (cgroup_limit.h); at least 1.
int UsableCpus();

}  // namespace lancet
