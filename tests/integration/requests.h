// Requests and what came of them, for the integration tests.
#pragma once

#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/generation_client.h"
#include "common/rgb_image.h"

namespace lancet {

// Keeps every event; `on_progress` and `on_delta` may act on one.
class EventLog final : public GenerationObserver {
 public:
  void OnQueued(const QueuedInfo& queued) override;
  void OnStarted(const StartedInfo& started) override;
  void OnProgress(const ProgressInfo& progress) override;
  void OnPreview(const PreviewInfo& preview) override;
  void OnDelta(absl::string_view text) override;

  std::vector<std::string> names;  // "queued", "started", "progress", "preview", "delta", in order
  std::vector<QueuedInfo> queued;
  std::vector<StartedInfo> started;
  std::vector<ProgressInfo> progress;
  std::vector<PreviewInfo> previews;
  std::vector<std::string> deltas;
  std::function<void(const ProgressInfo&)> on_progress;
  std::function<void()> on_delta;
};

// A picture being drawn, or changed where the request has one, on a thread of its own, with a promise to see
// its beginning by.
class RunningRequest {
 public:
  RunningRequest(GenerationClient& client, GenerationRequest request);
  // Cancels and waits.
  ~RunningRequest();

  // True once `steps` steps are reported; false if it ended before, or by the deadline.
  bool AwaitSteps(int steps);
  void Cancel() { cancellation_.Cancel(); }
  bool Ended() const;
  // Waits for the end; once. DeadlineExceeded by the harness if there is none.
  absl::StatusOr<GenerationResult> Result();

 private:
  mutable std::mutex mu_;
  int steps_ = 0;       // guarded by mu_
  bool ended_ = false;  // guarded by mu_
  EventLog events_;     // of the thread
  Cancellation cancellation_;
  std::future<absl::StatusOr<GenerationResult>> result_;
};

GenerationRequest MakeRequest(std::string prompt, int steps, uint64_t seed = 42);
// The likeliest answer to a question about an image file.
DescriptionRequest MakeQuestion(std::string image, std::string question, int max_new_tokens);

// The bytes of a file; none, with a failed expectation, if it can't be read.
std::string ReadBytes(const std::string& path);

// InvalidArgument if the bytes are not a picture of the format that they claim.
absl::StatusOr<RgbImage> Decode(const PictureFile& image);
absl::StatusOr<RgbImage> ReadPng(const std::string& path);

// 10 log10(255^2 / mean squared error); the pictures have the same size. 99 for equal ones.
double Psnr(const RgbImage& a, const RgbImage& b);
// Pearson's over all channels of all pixels; pictures of the same size.
double Correlation(const RgbImage& a, const RgbImage& b);

}  // namespace lancet
