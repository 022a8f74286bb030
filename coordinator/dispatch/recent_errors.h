// The outcomes of late, for operators: how many requests ended well, how many did not, and the last of those.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/dispatch/service_observer.h"

namespace lancet {

struct RecentError {
  uint64_t request_id = 0;
  absl::Time time;
  RequestTask task = RequestTask::kGenerate;
  absl::Status status;
  std::string caller;
};

// Thread-safe.
class RecentErrors {
 public:
  static constexpr size_t kMaxErrors = 32;

  struct Summary {
    int64_t succeeded = 0;
    int64_t failed = 0;
    std::vector<RecentError> errors;  // newest first
  };

  // Requests whose client gave up count as neither.
  void Add(const RequestOutcome& outcome, absl::Time now) {
    const std::lock_guard<std::mutex> lock(mu_);
    if (outcome.status.ok()) {
      ++succeeded_;
      return;
    }
    if (absl::IsCancelled(outcome.status)) return;
    ++failed_;
    errors_.push_front({outcome.id, now, outcome.origin.task, outcome.status, outcome.origin.caller});
    if (errors_.size() > kMaxErrors) errors_.pop_back();
  }

  Summary Read() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return {succeeded_, failed_, {errors_.begin(), errors_.end()}};
  }

 private:
  mutable std::mutex mu_;  // guards everything below
  int64_t succeeded_ = 0;
  int64_t failed_ = 0;
  std::deque<RecentError> errors_;
};

}  // namespace lancet
