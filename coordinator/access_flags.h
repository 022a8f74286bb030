// The flags that say who may come in: certificates, tokens, the ranks' secret, and what may be open without.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "rpc/tls.h"

namespace lancet {

struct AccessSettings {
  TlsFiles tls;         // of the public port
  TlsFiles worker_tls;  // of the worker port
  std::string token_file;
  std::string worker_secret;
  bool introspection = true;
};

// Reads and checks the flags. InvalidArgument names the flag: files that cannot be used, an address that
// others can reach without what it takes to keep strangers out.
absl::StatusOr<AccessSettings> AccessFromFlags(const std::string& listen, const std::string& worker_listen,
                                               const std::string& metrics_listen);

}  // namespace lancet
