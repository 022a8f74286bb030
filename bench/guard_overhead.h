// What snapshots, TLS, tokens, traces and scraped metrics cost a step: the same pictures, in turn, on two
// servers of one machine and model, one with all of it and one with none. What counts is the processor time
// of the servers' processes: who else wants the processors changes how long a picture takes, and hardly what
// it costs.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/client_options.h"

namespace lancet {

struct GuardOverheadOptions {
  ClientOptions plain;
  ClientOptions guarded;
  std::vector<pid_t> plain_pids;  // coordinator and ranks
  std::vector<pid_t> guarded_pids;
  std::string metrics;  // host:port of the guarded server's metrics, asked for at every step
  int side = 64;        // of the pictures, pixels
  int steps = 30;
  int rounds = 10;  // a picture on each server
};

// A step without and with, and the ratios of the two pictures of each round.
struct GuardCost {
  double plain_ms = 0;  // medians
  double guarded_ms = 0;
  double ratio = 0;  // median of guarded / plain
  double ratio_p25 = 0;
  double ratio_p75 = 0;
};

struct GuardOverhead {
  GuardCost processor;  // a picture's processor time over its steps
  GuardCost wall;       // between two reported steps
};

// NotFound names a process that is gone; errors of the requests.
absl::StatusOr<GuardOverhead> MeasureGuardOverhead(const GuardOverheadOptions& options);

}  // namespace lancet
