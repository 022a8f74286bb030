// Where the ranks of other hosts reach this process: one listening socket for all epochs.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/collective/file_descriptor.h"

namespace lancet {

class TcpListener {
 public:
  // Listens on "HOST:PORT": a name or number of an interface of this host, IPv6 in brackets, and a port, 0
  // for any that is free. An address that means every interface is InvalidArgument: peers could not dial it.
  // Unavailable if the name does not resolve or the port is taken.
  static absl::StatusOr<std::unique_ptr<TcpListener>> Create(const std::string& host_port);

  // What the peers dial, in numbers: "10.0.0.3:41234", "[fd00::3]:41234".
  const std::string& address() const { return address_; }
  // Non-blocking.
  int fd() const { return fd_.get(); }

 private:
  TcpListener(FileDescriptor fd, std::string address) : fd_(std::move(fd)), address_(std::move(address)) {}

  FileDescriptor fd_;
  std::string address_;
};

}  // namespace lancet
