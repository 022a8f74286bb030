#include "coordinator/telemetry/process_numbers.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace lancet {

ProcessNumbers ReadProcessNumbers() {
  ProcessNumbers numbers;
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0;
  int64_t resident = 0;  // pages
  if (statm >> total >> resident) numbers.resident_bytes = resident * sysconf(_SC_PAGESIZE);
  std::error_code error;
  std::filesystem::directory_iterator descriptors("/proc/self/fd", error);
  while (!error && descriptors != std::filesystem::directory_iterator()) {
    ++numbers.open_descriptors;
    descriptors.increment(error);
  }
  return numbers;
}

}  // namespace lancet
