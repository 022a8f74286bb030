// What the kernel counts for this process.
#pragma once

#include <cstdint>

namespace lancet {

struct ProcessNumbers {
  int64_t resident_bytes = 0;
  int64_t open_descriptors = 0;
};

// Zeros where /proc does not tell.
ProcessNumbers ReadProcessNumbers();

}  // namespace lancet
