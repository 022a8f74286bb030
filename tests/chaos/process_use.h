// What the kernel says of a process.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "absl/time/time.h"

namespace lancet {

struct ProcessUse {
  int64_t resident_kib = 0;
  int64_t descriptors = 0;
  int64_t threads = 0;
  absl::Duration cpu;  // of all its threads, in the system and outside; in ticks of 10 ms
};

// Of a process of this user. All zero if it is gone.
ProcessUse ReadProcessUse(pid_t pid);

}  // namespace lancet
