// A program started by a test: its output in a file, its end waited for, never left behind.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lancet {

// How a process ended.
struct ProcessEnd {
  std::optional<int> exit_code;  // unset: killed by a signal
  int signal = 0;
};

// Not thread-safe.
class Process {
 public:
  // Runs `arguments[0]` with stdout and stderr going to the file `log`.
  static absl::StatusOr<std::unique_ptr<Process>> Start(const std::vector<std::string>& arguments,
                                                        const std::string& log);
  // Kills and reaps it if it still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int number) const;
  bool Running();
  // Nothing if it still runs at the deadline.
  std::optional<ProcessEnd> AwaitEnd(absl::Duration timeout);
  // What it has printed so far.
  std::string Log() const;

 private:
  Process(pid_t pid, std::string log) : pid_(pid), log_(std::move(log)) {}

  const pid_t pid_;
  const std::string log_;
  std::optional<ProcessEnd> end_;
};

}  // namespace lancet
