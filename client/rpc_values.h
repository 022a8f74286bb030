// What every client of ours makes of gRPC's and the API's common values.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "lancet/v1/lancet.pb.h"

namespace lancet {

absl::Duration ToDuration(const google::protobuf::Duration& duration);
// The same code and message.
absl::Status FromGrpc(const grpc::Status& status);
// "forming", "serving", "draining", or "unknown" to this version.
std::string StateName(v1::GroupState state);
// From now on; none for InfiniteDuration.
void SetDeadline(grpc::ClientContext& context, absl::Duration timeout);

}  // namespace lancet
