// Waiting for a state of another process, which nothing announces.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lancet {

// Asks until `condition` holds; false if it does not by the deadline.
template <typename Condition>
bool AwaitCondition(Condition condition, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    // Between two questions, so that asking does not take the core from who works on the answer.
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

}  // namespace lancet
