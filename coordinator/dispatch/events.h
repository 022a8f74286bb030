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

struct StartedEvent {
  std::string request_id;
  uint64_t seed = 0;
  int32_t width = 0;
  int32_t height = 0;
  int32_t num_inference_steps = 0;
  std::vector<std::string> warnings;
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
};

struct ResultEvent {
  EncodedImage image;
  uint64_t seed = 0;
  StageTimings timings;
  std::string model_fingerprint;
};

using ImageEvent = std::variant<QueuedEvent, StartedEvent, ProgressEvent, PreviewEvent, ResultEvent>;

// How a call ends.
struct CallStatus {
  absl::Status status;
  std::optional<absl::Duration> retry_after;  // with ResourceExhausted
};

}  // namespace lancet
