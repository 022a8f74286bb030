// How long things take, from what was measured: decaying means of iteration times and of the share of running
// requests that an iteration carries. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace lancet {

class ServiceEstimate {
 public:
  // An iteration with `pieces` pieces of work, while `running` requests had a place; at least one each.
  void AddIteration(absl::Duration took, int64_t pieces, int64_t running) {
    // A weight of 1/8 follows a change of load within a dozen iterations and still smooths single hiccups.
    const double share = std::min(1.0, static_cast<double>(pieces) / static_cast<double>(running));
    mean_ = mean_.has_value() ? *mean_ + (took - *mean_) / 8 : took;
    share_ += (share - share_) / 8;
  }

  // For `count` iterations. Absent while nothing was measured.
  std::optional<absl::Duration> ForIterations(int64_t count) const {
    if (!mean_.has_value()) return std::nullopt;
    return *mean_ * count;
  }

  // For `count` pieces of one running request, which may be passed over by iterations that are full.
  std::optional<absl::Duration> ForPieces(int64_t count) const {
    if (!mean_.has_value()) return std::nullopt;
    return *mean_ * (static_cast<double>(count) / share_);
  }

  // When a refused client may try again: the time for `count` pieces, within one second and one minute.
  absl::Duration RetryDelay(int64_t count) const {
    return std::clamp(ForPieces(count).value_or(absl::Seconds(5)), absl::Seconds(1), absl::Minutes(1));
  }

 private:
  std::optional<absl::Duration> mean_;
  double share_ = 1.0;
};

}  // namespace lancet
