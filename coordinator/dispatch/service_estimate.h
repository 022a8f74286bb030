// How long things take, from what was measured: a decaying mean of iteration times. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace lancet {

class ServiceEstimate {
 public:
  void AddIteration(absl::Duration took) {
    // A weight of 1/8 follows a change of load within a dozen iterations and still smooths single hiccups.
    mean_ = mean_.has_value() ? *mean_ + (took - *mean_) / 8 : took;
  }

  // Absent while nothing was measured.
  std::optional<absl::Duration> ForIterations(int64_t count) const {
    if (!mean_.has_value()) return std::nullopt;
    return *mean_ * count;
  }

  // When a refused client may try again: the time for `count` iterations, within one second and one minute.
  absl::Duration RetryDelay(int64_t count) const {
    return std::clamp(ForIterations(count).value_or(absl::Seconds(5)), absl::Seconds(1), absl::Minutes(1));
  }

 private:
  std::optional<absl::Duration> mean_;
};

}  // namespace lancet
