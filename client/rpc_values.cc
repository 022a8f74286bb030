#include "client/rpc_values.h"

#include "absl/time/clock.h"

namespace lancet {

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::string StateName(v1::GroupState state) {
  switch (state) {
    case v1::GROUP_STATE_FORMING:
      return "forming";
    case v1::GROUP_STATE_SERVING:
      return "serving";
    case v1::GROUP_STATE_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  if (timeout != absl::InfiniteDuration()) context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

}  // namespace lancet
