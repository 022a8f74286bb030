// What a client hears about its request, as plain structs; lancet.proto tells the order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/request/image_codec.h"

namespace lancet {

// A picture as a file in memory.
struct EncodedImage {
  ImageFormat format = ImageFormat::kPng;
  int32_t width = 0;
  int32_t height = 0;
  std::string data;
};

struct QueuedEvent {
  int32_t position = 0;  // requests ahead
  std::optional<absl::Duration> estimated_wait;
};

// What was made of a request's picture.
struct InputImageInfo {
  int32_t width = 0;  // pixels, as the user sees it
  int32_t height = 0;
  int resolution = 0;        // lancet.v1.Resolution; 0 if the area was given instead
  int32_t vision_width = 0;  // pixels, what the vision tower gets
  int32_t vision_height = 0;
};

struct StartedEvent {
  std::string request_id;
  uint64_t seed = 0;
  int32_t width = 0;
  int32_t height = 0;
  int32_t num_inference_steps = 0;
  std::vector<std::string> warnings;
  int32_t max_new_tokens = 0;             // of an answer
  std::optional<InputImageInfo> input{};  // of a request with a picture
};

struct ProgressEvent {
  int32_t step = 0;
  int32_t total_steps = 0;
  absl::Duration elapsed;
  absl::Duration estimated_remaining;
};

struct PreviewEvent {
  int32_t step = 0;
  EncodedImage image;
};

struct StageTimings {
  absl::Duration queue;
  absl::Duration prefill;
  absl::Duration denoise;
  absl::Duration decode;
  absl::Duration encode;
  absl::Duration total;
  absl::Duration input;   // encoding the request's picture
  absl::Duration answer;  // writing tokens
};

struct ResultEvent {
  EncodedImage image;
  uint64_t seed = 0;
  StageTimings timings;
  std::string model_fingerprint;
};

// More of an answer. Deltas that were not sent yet become one.
struct DeltaEvent {
  std::string text;
  int32_t token_count = 0;  // tokens of the answer so far
};

// The numbers are those of lancet.v1.FinishReason.
enum class FinishReason : uint8_t { kStop = 1, kLength = 2 };

struct TextResultEvent {
  std::string text;  // all deltas, one after the other
  FinishReason finish_reason = FinishReason::kStop;
  int32_t prompt_tokens = 0;
  int32_t answer_tokens = 0;
  uint64_t seed = 0;
  StageTimings timings;
  std::string model_fingerprint;
};

using ClientEvent = std::variant<QueuedEvent, StartedEvent, ProgressEvent, PreviewEvent, ResultEvent,
                                 DeltaEvent, TextResultEvent>;

// Why a request never began, for those who count.
enum class RejectReason : uint8_t {
  kNone,             // it began, or its client gave up
  kUnauthenticated,  // no token, or none that we know
  kTokenLimit,       // its token has had its share
  kInvalid,
  kTooLarge,  // for any group
  kQueueFull,
  kTooManyCalls,
  kOverloaded,  // requests that wait to be read, or pictures to be decoded
  kNoGroup,
  kDraining,
  kLate,  // its deadline passed on the way
};

// How a call ends.
struct CallStatus {
  absl::Status status;
  std::optional<absl::Duration> retry_after;  // with ResourceExhausted
  RejectReason reason = RejectReason::kNone;
};

}  // namespace lancet
