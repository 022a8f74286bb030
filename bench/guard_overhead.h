// What TLS, tokens, traces and scraped metrics cost a step: the same pictures, in turn, on two servers of one
// machine and model, one with all of it and one with none.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/client_options.h"

namespace lancet {

struct GuardOverheadOptions {
  ClientOptions plain;
  ClientOptions guarded;
  std::string metrics;  // host:port of the guarded server's metrics, asked for ten times a second
  int side = 64;        // of the pictures, pixels
  int steps = 30;
  int rounds = 10;  // a picture on each server
};

struct GuardOverhead {
  double plain_step_ms = 0;  // medians
  double guarded_step_ms = 0;
  double ratio = 0;  // median of guarded / plain, of the pictures of one round
  double ratio_p25 = 0;
  double ratio_p75 = 0;
};

absl::StatusOr<GuardOverhead> MeasureGuardOverhead(const GuardOverheadOptions& options);

}  // namespace lancet
