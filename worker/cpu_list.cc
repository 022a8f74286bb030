#include "worker/cpu_list.h"

#include <sched.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "worker/cgroup_limit.h"

namespace lancet {

absl::StatusOr<std::vector<int>> ParseCpuList(absl::string_view text) {
  std::set<int> cpus;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    int first = 0;
    int last = 0;
    const bool parsed = absl::SimpleAtoi(ends.first, &first) &&
                        absl::SimpleAtoi(absl::StrContains(part, '-') ? ends.second : ends.first, &last);
    if (!parsed || first < 0 || last < first || last >= CPU_SETSIZE) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" in the processor list \"", text,
                                                     "\" is not n or n-m with 0 <= n <= m < ", CPU_SETSIZE));
    }
    for (int cpu = first; cpu <= last; ++cpu) cpus.insert(cpu);
  }
  return std::vector<int>(cpus.begin(), cpus.end());
}

absl::Status PinToCpus(const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("this process may use none of the processors ", absl::StrJoin(cpus, ",")));
  }
  return absl::OkStatus();
}

int UsableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const int cpus = std::max(1, CPU_COUNT(&set));
  return std::min(cpus, CgroupCpus().value_or(cpus));
}

}  // namespace lancet
