// Addresses to listen on, as flags give them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lancet {

struct HostPort {
  std::string host;  // without the brackets of an IPv6 address
  int port = 0;
};

// "host:port" or "[v6]:port". InvalidArgument names what is missing or out of range.
absl::StatusOr<HostPort> ParseHostPort(absl::string_view text);

// Whether only this machine can reach it: 127.0.0.0/8, [::1], localhost or unix:path. What cannot be read as
// an address counts as reachable.
bool IsLoopback(absl::string_view address);

}  // namespace lancet
