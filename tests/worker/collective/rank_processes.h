// Runs ranks of a group as forked processes, which the test may kill or stop.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace lancet {

// A forked process that runs `body` and hands its Status back. Killed and reaped by the destructor if it
// still runs.
class RankProcess {
 public:
  explicit RankProcess(const std::function<absl::Status()>& body);
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  pid_t pid() const { return pid_; }
  // What the body returned; Aborted if the process ended without saying.
  absl::Status Join();
  // Returns when the process has stopped itself with SIGSTOP.
  void WaitUntilStopped() const;
  void Kill();

 private:
  pid_t pid_ = -1;
  int result_fd_ = -1;
};

// A name that no other test process uses.
std::string UniqueSegmentName();
// Whether the segment still has a name in /dev/shm.
bool SegmentNameExists(const std::string& name);

}  // namespace lancet
