#include "tests/integration/requests.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/request/image_decoder.h"
#include "gtest/gtest.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"

namespace lancet {

void EventLog::OnQueued(const QueuedInfo& info) {
  names.emplace_back("queued");
  queued.push_back(info);
}

void EventLog::OnStarted(const StartedInfo& info) {
  names.emplace_back("started");
  started.push_back(info);
}

void EventLog::OnProgress(const ProgressInfo& info) {
  names.emplace_back("progress");
  progress.push_back(info);
  if (on_progress) on_progress(info);
}

void EventLog::OnPreview(const PreviewInfo& info) {
  names.emplace_back("preview");
  previews.push_back(info);
}

void EventLog::OnDelta(absl::string_view text) {
  names.emplace_back("delta");
  deltas.emplace_back(text);
  if (on_delta) on_delta();
}

RunningRequest::RunningRequest(GenerationClient& client, GenerationRequest request) {
  events_.on_progress = [this](const ProgressInfo& progress) {
    const std::lock_guard<std::mutex> lock(mu_);
    steps_ = progress.step;
  };
  result_ = std::async(std::launch::async, [this, &client, request = std::move(request)] {
    absl::StatusOr<GenerationResult> result = request.image.empty()
                                                  ? client.Generate(request, &events_, &cancellation_)
                                                  : client.Edit(request, &events_, &cancellation_);
    const std::lock_guard<std::mutex> lock(mu_);
    ended_ = true;
    return result;
  });
}

RunningRequest::~RunningRequest() {
  Cancel();
  if (result_.valid()) result_.wait();
}

bool RunningRequest::AwaitSteps(int steps) {
  bool reached = false;
  AwaitCondition(
      [&] {
        const std::lock_guard<std::mutex> lock(mu_);
        reached = steps_ >= steps;
        return reached || ended_;
      },
      kClusterDeadline);
  return reached;
}

bool RunningRequest::Ended() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return ended_;
}

absl::StatusOr<GenerationResult> RunningRequest::Result() {
  if (result_.wait_for(absl::ToChronoSeconds(kClusterDeadline)) != std::future_status::ready) {
    return absl::DeadlineExceededError("the request did not end");
  }
  return result_.get();
}

GenerationRequest MakeRequest(std::string prompt, int steps, uint64_t seed) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.num_steps = steps;
  request.seed = seed;
  return request;
}

DescriptionRequest MakeQuestion(std::string image, std::string question, int max_new_tokens) {
  DescriptionRequest request;
  request.image = std::move(image);
  request.question = std::move(question);
  request.max_new_tokens = max_new_tokens;
  return request;
}

std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

absl::StatusOr<RgbImage> Decode(const PictureFile& image) { return DecodeImage(image.data, DecodeLimits()); }

absl::StatusOr<RgbImage> ReadPng(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("no file ", path));
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return DecodeImage(bytes, DecodeLimits());
}

double Psnr(const RgbImage& a, const RgbImage& b) {
  double sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double difference = double{1} * a.pixels[i] - b.pixels[i];
    sum += difference * difference;
  }
  if (sum == 0) return 99;
  return 10 * std::log10(255.0 * 255.0 * static_cast<double>(a.pixels.size()) / sum);
}

double Correlation(const RgbImage& a, const RgbImage& b) {
  const auto n = static_cast<double>(a.pixels.size());
  double sum_a = 0, sum_b = 0, sum_aa = 0, sum_bb = 0, sum_ab = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const double x = a.pixels[i];
    const double y = b.pixels[i];
    sum_a += x;
    sum_b += y;
    sum_aa += x * x;
    sum_bb += y * y;
    sum_ab += x * y;
  }
  const double variance_a = sum_aa / n - sum_a / n * (sum_a / n);
  const double variance_b = sum_bb / n - sum_b / n * (sum_b / n);
  const double covariance = sum_ab / n - sum_a / n * (sum_b / n);
  return covariance / std::sqrt(std::max(1e-9, variance_a * variance_b));
}

}  // namespace lancet
