// The stream to the coordinator over gRPC (lancet.v1.WorkerService).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/coordinator_stream.h"

namespace lancet {

// `address` as gRPC takes it: host:port or unix:path. The connection is not encrypted. Thread-safe.
std::unique_ptr<CoordinatorConnector> MakeGrpcConnector(const std::string& address);

}  // namespace lancet
