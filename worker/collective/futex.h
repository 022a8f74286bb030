// Sleeping on a word of memory that several processes may share.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace lancet {

// Sleeps until FutexWakeAll on the word, at most `timeout`, and not at all if the word is not `expected`. May
// return early for no reason: the caller looks at the word again.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, absl::Duration timeout);

// Wakes all who sleep on the word, in all processes.
void FutexWakeAll(const std::atomic<uint32_t>& word);

}  // namespace lancet
