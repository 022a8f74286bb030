// Where a server is and how to come in.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "rpc/tls.h"

namespace lancet {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // host:port or unix:path
  bool tls = false;
  TlsFiles tls_files{};           // with TLS
  std::string tls_server_name{};  // that the server's certificate must have; empty: the one in `server`
  std::string token{};            // bearer token; empty: none
  // How long a request with an idempotency key tries to reach a server that is gone.
  absl::Duration rejoin_for = absl::Minutes(1);
};

// InvalidArgument for an empty address, TLS files without TLS, and a token that would go over a network
// unencrypted.
absl::Status CheckClientOptions(const ClientOptions& options);

// A token from a file that only its owner should read.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

}  // namespace lancet
