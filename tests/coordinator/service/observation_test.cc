// What observers are told about calls of the real server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "coordinator/dispatch/service_observer.h"
#include "tests/coordinator/service/service_fixture.h"

namespace lancet {
namespace {

// Thread-safe.
class RecordingObserver final : public ServiceObserver {
 public:
  void OnOutcome(const RequestOutcome& outcome) override {
    const std::lock_guard<std::mutex> lock(mu_);
    outcomes_.push_back(outcome);
  }
  void OnIterationSent(const std::string&, int64_t rows, int64_t requests) override {
    const std::lock_guard<std::mutex> lock(mu_);
    rows_ += rows;
    most_requests_ = std::max(most_requests_, requests);
  }
  void OnFirstPreview(uint64_t, RequestTask, absl::Duration) override {
    const std::lock_guard<std::mutex> lock(mu_);
    ++first_previews_;
  }
  void OnFirstToken(uint64_t, absl::Duration) override {
    const std::lock_guard<std::mutex> lock(mu_);
    ++first_tokens_;
  }
  void OnReceived(RequestTask, int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mu_);
    received_ += bytes;
  }
  void OnSent(RequestTask, int64_t bytes) override {
    const std::lock_guard<std::mutex> lock(mu_);
    sent_ += bytes;
  }

  // Waits for so many outcomes.
  std::vector<RequestOutcome> Outcomes(size_t count) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < deadline) {
      {
        const std::lock_guard<std::mutex> lock(mu_);
        if (outcomes_.size() >= count) return outcomes_;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return {};
  }

  std::mutex mu_;
  std::vector<RequestOutcome> outcomes_;
  int64_t rows_ = 0;
  int64_t most_requests_ = 0;
  int first_previews_ = 0;
  int first_tokens_ = 0;
  int64_t received_ = 0;
  int64_t sent_ = 0;
};

class ObservationTest : public ServiceFixture {
 protected:
  ObservationTest() { observer = &seen_; }
  ~ObservationTest() override {
    // Before the observer goes.
    ranks_.clear();
    if (dispatcher_ != nullptr) dispatcher_->Shutdown();
  }
  RecordingObserver seen_;
};

TEST_F(ObservationTest, OutcomeHasTaskTraceAndTimes) {
  StartServer();
  StartRanks();
  grpc::ClientContext context;
  context.AddMetadata("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
  v1::GenerateImageRequest request = GoodRequest();
  request.mutable_preview()->set_every_n_steps(1);
  const auto reader = stub_->GenerateImage(&context, request);
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) {
  }
  ASSERT_TRUE(reader->Finish().ok());
  const std::vector<RequestOutcome> outcomes = seen_.Outcomes(1);
  ASSERT_EQ(outcomes.size(), 1u);
  const RequestOutcome& outcome = outcomes[0];
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.origin.task, RequestTask::kGenerate);
  EXPECT_EQ(outcome.origin.trace.TraceId(), "4bf92f3577b34da6a3ce929d0e0e4736");
  // A span of its own.
  EXPECT_NE(outcome.origin.trace.span, 0x00f067aa0ba902b7u);
  EXPECT_EQ(outcome.group, "main");
  EXPECT_EQ(outcome.steps_done, outcome.steps);
  EXPECT_GT(outcome.timings.total, absl::ZeroDuration());
  const std::lock_guard<std::mutex> lock(seen_.mu_);
  EXPECT_EQ(seen_.first_previews_, 1);
  EXPECT_GT(seen_.rows_, 0);
  EXPECT_EQ(seen_.most_requests_, 1);
  EXPECT_EQ(seen_.received_, static_cast<int64_t>(request.ByteSizeLong()));
  EXPECT_GT(seen_.sent_, 0);
}

TEST_F(ObservationTest, RejectionsHaveAReason) {
  StartServer();
  Generate(GoodRequest());  // before there are ranks
  v1::GenerateImageRequest bad = GoodRequest();
  bad.set_num_inference_steps(0);
  Generate(bad);
  const std::vector<RequestOutcome> outcomes = seen_.Outcomes(2);
  ASSERT_EQ(outcomes.size(), 2u);
  EXPECT_EQ(outcomes[0].reason, RejectReason::kNoGroup);
  EXPECT_EQ(outcomes[0].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(outcomes[1].reason, RejectReason::kInvalid);
  // One that the server made, as none came.
  EXPECT_FALSE(outcomes[1].origin.trace.empty());
}

TEST_F(ObservationTest, AnswersTellTheirFirstToken) {
  StartServer();
  StartRanks();
  ASSERT_TRUE(Describe(GoodQuestion()).status.ok());
  const std::vector<RequestOutcome> outcomes = seen_.Outcomes(1);
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].origin.task, RequestTask::kDescribe);
  EXPECT_GT(outcomes[0].answer_tokens, 0);
  const std::lock_guard<std::mutex> lock(seen_.mu_);
  EXPECT_EQ(seen_.first_tokens_, 1);
}

}  // namespace
}  // namespace lancet
