// lancet.v1 messages of worker.proto to and from plain structs; the one place where both are known. Whatever
// comes in is checked before it is copied: counts against the limits below, lengths against each other, enums
// against what this version knows, picture bytes against the picture's size. Stateless, thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rank_messages.h"
#include "common/request_plan.h"
#include "lancet/v1/worker.pb.h"

namespace lancet {

// Far above what admission lets through, far below what would hurt.
inline constexpr int kMaxPrefixBlocks = 64;
inline constexpr int kMaxBlockTokens = 1 << 17;
inline constexpr int32_t kMaxLatentSide = 1024;
inline constexpr int64_t kMaxPlanLatents = 1 << 16;  // 4096 x 4096 pixels
inline constexpr int32_t kMaxPlanSteps = 10000;
inline constexpr int32_t kMaxWorkIndex = 1 << 17;  // a step or a token
inline constexpr float kMaxTemperature = 100.0f;
inline constexpr int kMaxWorkPerIteration = 256;
inline constexpr int32_t kMaxImageSide = 16384;
inline constexpr int64_t kMaxImagePixels = int64_t{4096} * 4096;
inline constexpr double kMaxGraceSeconds = 86400;
inline constexpr size_t kMaxNameBytes = 256;     // group, host, fingerprint, device, segment
inline constexpr size_t kMaxReasonBytes = 4096;  // longer ones are cut when sent, refused when received

// Largest encoded message on the worker port: a picture of kMaxImagePixels and its neighbours.
inline constexpr int kMaxWorkerMessageBytes = 64 << 20;

v1::RequestPlan ToProto(const RequestPlan& plan);
v1::ConnectRequest ToProto(const RankMessage& message);
v1::ConnectResponse ToProto(const CoordinatorMessage& message);

// InvalidArgument names the field, the value and the limit.
absl::StatusOr<RequestPlan> FromProto(const v1::RequestPlan& plan);
absl::StatusOr<RankMessage> FromProto(const v1::ConnectRequest& message);
absl::StatusOr<CoordinatorMessage> FromProto(const v1::ConnectResponse& message);

}  // namespace lancet
