// Hosts of a test: a network namespace each, joined to this process's by a bridge of their own, with links
// that can be taken down. Needs the rights of root and a kernel with bridges and virtual links.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lancet {

// Not thread-safe.
class HostNetwork {
 public:
  // Unimplemented, with the reason, where it is not allowed or does not work. `log` is a file for what the
  // commands say.
  static absl::StatusOr<std::unique_ptr<HostNetwork>> Create(int hosts, const std::string& log);
  // Removes everything; what still runs there loses its network.
  ~HostNetwork();
  HostNetwork(const HostNetwork&) = delete;
  HostNetwork& operator=(const HostNetwork&) = delete;

  // Where hosts reach this process.
  std::string gateway() const { return Address(0); }
  std::string address(int host) const { return Address(host + 1); }
  // The arguments that run `arguments`, whose first is a path, on a host, as the process that is started
  // itself.
  std::vector<std::string> OnHost(int host, const std::vector<std::string>& arguments) const;
  absl::Status SetLink(int host, bool up);

 private:
  HostNetwork(int hosts, std::string log);
  absl::Status Build();
  // Whether a host reaches a port of this process: a firewall may be in the way.
  absl::Status Try(int host);
  std::string Address(int number) const;
  std::string Namespace(int host) const;
  // `ip` with these arguments; FailedPrecondition with them if it fails.
  absl::Status Ip(const std::vector<std::string>& arguments);

  const int hosts_;
  const std::string log_;
  const std::string prefix_;  // of every name
  const std::string net_;     // the namespace of the bridge
  std::vector<std::string> namespaces_;
};

}  // namespace lancet
