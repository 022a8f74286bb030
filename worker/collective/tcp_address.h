// "HOST:PORT" and "[HOST]:PORT" to and from socket addresses.
#pragma once

#include <sys/socket.h>

#include <string>

#include "absl/status/statusor.h"

namespace lancet {

struct TcpAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

// InvalidArgument if the text has not this form, Unavailable if the name does not resolve.
absl::StatusOr<TcpAddress> ResolveTcpAddress(const std::string& host_port);
// Numbers only. Empty if the address is of another family.
std::string FormatTcpAddress(const TcpAddress& address);

}  // namespace lancet
