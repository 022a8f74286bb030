// The `lancet` program without its surroundings: flags in, files and text out, an exit code back.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/generation_client.h"
#include "client/inline_image.h"

namespace lancet {

// Promised to scripts; see --help.
enum class ExitCode {
  kOk = 0,
  kOther = 1,
  kUsage = 2,
  kUnavailable = 3,
  kDeadline = 4,
  kCancelled = 5,
  kResourceExhausted = 6,
};

ExitCode ExitCodeOf(const absl::Status& status);

// Where the program runs. The streams outlive the call.
struct CliEnvironment {
  std::ostream& out;             // stdout: seed, timings, paths
  std::ostream& err;             // stderr: progress, previews, errors
  bool err_is_terminal = false;  // a bar that is redrawn instead of lines
  int columns = 80;              // of that terminal
  // Asks the terminal how it shows pictures; called only for --show.
  std::function<absl::StatusOr<InlineProtocol>()> detect_inline_protocol;
};

// Runs one command. `cancellation` ends a generate from another thread.
ExitCode RunCli(const std::vector<std::string>& arguments, const CliEnvironment& environment,
                Cancellation* cancellation);

}  // namespace lancet
