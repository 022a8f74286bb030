// The stream to the coordinator over gRPC (lancet.v1.WorkerService).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/tls.h"
#include "worker/coordinator_stream.h"

namespace lancet {

struct GrpcConnectorOptions {
  std::string address;      // as gRPC takes it: host:port or unix:path
  bool tls = false;         // else the connection is not encrypted
  TlsFiles tls_files;       // with TLS
  std::string server_name;  // that the coordinator's certificate must have; empty: the address's
  std::string secret;       // proven to the coordinator (common/rank_proof.h); empty: nothing is
};

// InvalidArgument names a file of certificates. Thread-safe.
absl::StatusOr<std::unique_ptr<CoordinatorConnector>> MakeGrpcConnector(const GrpcConnectorOptions& options);

}  // namespace lancet
