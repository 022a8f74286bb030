// The terminal behind a file descriptor.
#pragma once

#include <string>

#include "absl/time/time.h"

namespace lancet {

// Columns of the terminal at `fd`; 80 if it does not say.
int TerminalColumns(int fd);

// Asks the terminal for its primary device attributes (ESC [ c) and returns the answer as it came; empty if
// stdin or stdout-like `out_fd` is no terminal, or no answer came in time. Typed characters that arrive
// meanwhile are lost.
std::string QueryDeviceAttributes(int in_fd, int out_fd, absl::Duration timeout);

}  // namespace lancet
