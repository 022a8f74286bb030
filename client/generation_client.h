// Talks to a Lancet server (lancet.v1.ImageService and TextService) in plain structs; no gRPC type shows.
//
//   auto client = lancet::GenerationClient::Create({.server = "127.0.0.1:50051"});
//   lancet::GenerationRequest request;
//   request.prompt = "a rocket in the top left";
//   auto result = (*client)->Generate(request, &observer, &cancellation);
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/client_options.h"

namespace grpc {
class ClientContext;
}

namespace lancet {

enum class PictureFormat { kPng, kJpeg, kWebp };
enum class PreviewKind { kLatentRgb, kVae };
enum class RequestPriority { kLow, kNormal, kHigh };
enum class RequestSampler { kEuler, kDpmpp2m };
enum class InputResolution { kImage256, kImage512, kImage768, kVideo360p, kVideo480p };

// "png", "jpg", "webp": what a file of this format is called.
absl::string_view FileExtension(PictureFormat format);

// What is unset is left to the server, which reports its choice.
struct GenerationRequest {
  std::string prompt;
  std::optional<uint64_t> seed;
  std::optional<int32_t> num_steps;
  std::optional<float> guidance_scale;
  std::optional<float> timestep_shift;
  std::optional<std::pair<float, float>> guidance_interval;
  std::optional<std::pair<int32_t, int32_t>> size;  // width, height in pixels
  PictureFormat output_format = PictureFormat::kPng;
  RequestPriority priority = RequestPriority::kNormal;
  std::optional<int32_t> preview_every_steps;  // unset: no previews
  PreviewKind preview_kind = PreviewKind::kLatentRgb;
  PictureFormat preview_format = PictureFormat::kJpeg;
  std::optional<int32_t> preview_max_side;  // pixels
  RequestSampler sampler = RequestSampler::kEuler;
  absl::Duration timeout = absl::InfiniteDuration();
  std::string traceparent;  // W3C trace context to be a part of; what is none is left out
  // For Edit, where prompt is the instruction and size the area.
  std::string image;  // the file
  std::optional<InputResolution> resolution;
  bool sample_condition = false;
  // Names the request, at most 128 bytes of printable ASCII, unique among all clients. With it a broken
  // connection, or a server that is started anew, is no error: the call joins the request again, which is not
  // drawn twice.
  std::string idempotency_key;
};

// Likewise.
struct DescriptionRequest {
  std::string image;  // the file
  std::optional<std::string> question;
  std::optional<std::string> system_prompt;
  std::optional<int32_t> max_new_tokens;
  std::optional<float> temperature;
  std::optional<uint64_t> seed;
  std::optional<InputResolution> resolution;
  RequestPriority priority = RequestPriority::kNormal;
  absl::Duration timeout = absl::InfiniteDuration();
  std::string idempotency_key;
  std::string traceparent;  // as in GenerationRequest
};

struct PictureFile {
  PictureFormat format = PictureFormat::kPng;
  int32_t width = 0;
  int32_t height = 0;
  std::string data;  // the file
};

struct QueuedInfo {
  int32_t position = 0;
  std::optional<absl::Duration> estimated_wait;
};
struct StartedInfo {
  std::string request_id;
  uint64_t seed = 0;
  int32_t width = 0;
  int32_t height = 0;
  int32_t num_steps = 0;
  std::vector<std::string> warnings;
};
struct ProgressInfo {
  int32_t step = 0;
  int32_t total_steps = 0;
  absl::Duration elapsed;
  absl::Duration estimated_remaining;
};
struct PreviewInfo {
  int32_t step = 0;
  PictureFile image;
};
struct GenerationTimings {
  absl::Duration queue, prefill, denoise, decode, encode, total, input, answer;
};
struct GenerationResult {
  PictureFile image;
  uint64_t seed = 0;
  GenerationTimings timings;
  std::string model_fingerprint;
};

struct DescriptionResult {
  std::string text;
  bool cut = false;  // ended by max_new_tokens, not by the model
  int32_t prompt_tokens = 0;
  int32_t answer_tokens = 0;
  uint64_t seed = 0;
  GenerationTimings timings;
  std::string model_fingerprint;
};

// What happens before the result, in order, on the thread that called Generate.
class GenerationObserver {
 public:
  virtual ~GenerationObserver() = default;
  virtual void OnQueued(const QueuedInfo& /*queued*/) {}
  virtual void OnStarted(const StartedInfo& /*started*/) {}
  virtual void OnProgress(const ProgressInfo& /*progress*/) {}
  virtual void OnPreview(const PreviewInfo& /*preview*/) {}
  // More of an answer; whole characters.
  virtual void OnDelta(absl::string_view /*text*/) {}
};

struct ModelDescription {
  struct Group {
    std::string name;
    int32_t world_size = 0;
    std::string state;  // "forming", "serving", "draining" or "unknown"
    int32_t active_requests = 0;
    std::string device;
  };
  std::string name;
  std::string fingerprint;
  std::string quantization;
  std::pair<int32_t, int32_t> default_size;
  std::vector<std::pair<int32_t, int32_t>> recommended_sizes;
  int32_t max_prompt_bytes = 0;
  int32_t max_prompt_tokens = 0;
  int32_t max_steps = 0;
  int32_t max_side = 0;
  int64_t max_pixels = 0;
  int32_t max_queue = 0;
  int32_t max_new_tokens = 0;
  int64_t max_image_bytes = 0;
  int32_t max_image_side = 0;
  int64_t max_image_pixels = 0;
  std::vector<std::string> tasks;  // "generate", "edit", "describe"
  std::vector<Group> groups;
  std::string server_version;
};

// Ends a call from another thread. Thread-safe; may be used before, during and after the call; for one call.
class Cancellation {
 public:
  void Cancel();
  bool cancelled() const;
  // Waits for it; false if it did not come within `timeout`.
  bool AwaitCancel(absl::Duration timeout) const;

 private:
  friend class GenerationClient;
  void Set(grpc::ClientContext* context);

  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  bool cancelled_ = false;                  // guarded by mu_
  grpc::ClientContext* context_ = nullptr;  // guarded by mu_; of the call under way
};

// Thread-safe; the connection is shared by all calls and made on first use.
class GenerationClient {
 public:
  // Errors as CheckClientOptions.
  static absl::StatusOr<std::unique_ptr<GenerationClient>> Create(const ClientOptions& options);
  ~GenerationClient();

  // Blocks until the result. A server that is unavailable is tried a few times within about three seconds, as
  // long as it has not sent an event: from then on the call is repeated only if it has an idempotency key,
  // and the observer hears everything once all the same. The error is the server's; Cancelled after Cancel;
  // DataLoss if the stream ended without a result. `cancellation` may be null.
  absl::StatusOr<GenerationResult> Generate(const GenerationRequest& request, GenerationObserver* observer,
                                            Cancellation* cancellation);

  // Likewise, of a picture to be changed and of one to be described.
  absl::StatusOr<GenerationResult> Edit(const GenerationRequest& request, GenerationObserver* observer,
                                        Cancellation* cancellation);
  absl::StatusOr<DescriptionResult> Describe(const DescriptionRequest& request, GenerationObserver* observer,
                                             Cancellation* cancellation);

  absl::StatusOr<ModelDescription> GetModelInfo(absl::Duration timeout);

 private:
  struct Impl;
  // One call whose stream ends in a result; `start` makes its reader. Defined for use in the source alone.
  template <typename Result, typename Response, typename Start>
  absl::StatusOr<Result> Call(absl::Duration timeout, GenerationObserver* observer,
                              Cancellation* cancellation, const Start& start);
  // Call, and again while the server is unavailable and the request has a key.
  template <typename Result, typename Response, typename Start>
  absl::StatusOr<Result> CallAgain(absl::Duration timeout, absl::string_view idempotency_key,
                                   GenerationObserver* observer, Cancellation* cancellation,
                                   const Start& start);
  explicit GenerationClient(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace lancet
