// Exponential waiting times with jitter, so that ranks that lost the coordinator together do not return
// together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

#include "absl/time/time.h"

namespace lancet {

// Not thread-safe.
class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration limit, uint64_t seed)
      : first_(first), limit_(limit), random_(seed) {
    Reset();
  }

  void Reset() { next_ = first_; }

  // Between half of the nominal time and all of it; the nominal time doubles from call to call up to the
  // limit.
  absl::Duration Next() {
    const absl::Duration nominal = next_;
    next_ = std::min(limit_, 2 * next_);
    return Jitter(nominal);
  }

  absl::Duration Jitter(absl::Duration nominal) {
    return nominal * std::uniform_real_distribution<double>(0.5, 1.0)(random_);
  }

 private:
  const absl::Duration first_;
  const absl::Duration limit_;
  absl::Duration next_;
  std::mt19937_64 random_;
};

}  // namespace lancet
