#include "tests/chaos/process_use.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace lancet {

ProcessUse ReadProcessUse(pid_t pid) {
  ProcessUse numbers;
  const std::string dir = absl::StrCat("/proc/", pid);
  std::ifstream status(dir + "/status");
  std::string line;
  while (std::getline(status, line)) {
    sscanf(line.c_str(), "VmRSS: %ld kB", &numbers.resident_kib);
    sscanf(line.c_str(), "Threads: %ld", &numbers.threads);
  }
  std::ifstream stat(dir + "/stat");
  std::getline(stat, line);
  // Fields 14 and 15, counted behind the name, which may hold anything but ends with the last parenthesis.
  uint64_t user = 0;
  uint64_t system = 0;
  const size_t name_end = line.rfind(')');
  if (name_end != std::string::npos &&
      sscanf(line.c_str() + name_end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
             &system) == 2) {
    numbers.cpu =
        absl::Seconds(static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK)));
  }
  std::error_code error;
  for (std::filesystem::directory_iterator at(dir + "/fd", error), end; !error && at != end;
       at.increment(error)) {
    ++numbers.descriptors;
  }
  return numbers;
}

}  // namespace lancet
