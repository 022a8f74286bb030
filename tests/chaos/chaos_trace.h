// What the longest time that a request heard nothing was made of: faults and what the coordinator's log says
// of groups and of the request, in the order of time.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace lancet {

// Something that happened to the cluster.
struct ChaosEvent {
  absl::Time begin;
  absl::Time end;
  std::string what;
};

// Lines "+1.234 s what" for everything between `begin` and `end`, seconds after `begin`: `faults` that
// overlap it, and lines of `log` (text format) about the trace `trace_id` or about ranks, groups and the
// coordinator's life. At most `most` lines; the last one says how many were left out.
std::vector<std::string> PhasesOfSilence(absl::string_view log, const std::vector<ChaosEvent>& faults,
                                         absl::string_view trace_id, absl::Time begin, absl::Time end,
                                         size_t most = 80);

}  // namespace lancet
