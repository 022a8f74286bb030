// A clock that tests move. Thread-safe.
#pragma once

#include <mutex>

#include "absl/time/time.h"
#include "common/clock.h"

namespace lancet {

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override {
    const std::lock_guard<std::mutex> lock(mu_);
    return now_;
  }
  void Advance(absl::Duration by) {
    const std::lock_guard<std::mutex> lock(mu_);
    now_ += by;
  }

 private:
  mutable std::mutex mu_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

}  // namespace lancet
