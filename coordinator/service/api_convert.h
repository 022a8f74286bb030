// Messages of lancet.proto to and from plain structs. What is sound is decided by admission; here it is only
// taken apart. Stateless, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/model_config.h"
#include "coordinator/dispatch/dispatcher_core.h"
#include "coordinator/dispatch/events.h"
#include "coordinator/request/admission.h"
#include "lancet/v1/lancet.pb.h"

namespace lancet {

// What GetModelInfo reports.
struct ModelInfo {
  ModelCard card;
  std::string fingerprint;
  std::string quantization;
  Limits limits;
  int32_t max_queue = 0;
  std::string server_version;
  bool has_vision = false;  // the checkpoint's files have a vision tower
};

// Requests as they came from the wire. gRPC's own parser would turn text that is not UTF-8 into an
// UNIMPLEMENTED without a word; here it is InvalidArgument naming the field.
absl::StatusOr<GenerateRequest> ParseGenerateRequest(const std::string& wire);
absl::StatusOr<EditRequest> ParseEditRequest(const std::string& wire);
absl::StatusOr<DescribeRequest> ParseDescribeRequest(const std::string& wire);

// A GenerateImageResponse, EditImageResponse or DescribeImageResponse for the wire.
std::string SerializeGenerateEvent(const ClientEvent& event);
std::string SerializeEditEvent(const ClientEvent& event);
std::string SerializeDescribeEvent(const ClientEvent& event);

v1::GetModelInfoResponse ToProto(const ModelInfo& info, const std::vector<GroupInfo>& groups, bool draining);

// A google.rpc.Status with a google.rpc.RetryInfo in it, for grpc-status-details-bin.
std::string SerializeRetryDetails(int code, absl::string_view message, absl::Duration retry_after);

}  // namespace lancet
