#include "client/generation_client.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/rejoining_observer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_image_service.h"

namespace lancet {
namespace {

using ::testing::ElementsAre;

class RecordingObserver final : public GenerationObserver {
 public:
  void OnQueued(const QueuedInfo& queued) override {
    events.push_back(absl::StrCat("queued ", queued.position));
  }
  void OnStarted(const StartedInfo& started) override {
    events.push_back(absl::StrCat("started ", started.num_steps));
    if (on_started) on_started();
  }
  void OnProgress(const ProgressInfo& progress) override {
    events.push_back(absl::StrCat("progress ", progress.step, " ", absl::FormatDuration(progress.elapsed)));
  }
  void OnPreview(const PreviewInfo& preview) override {
    events.push_back(absl::StrCat("preview ", preview.step, " ", preview.image.data));
  }
  std::vector<std::string> events;
  std::function<void()> on_started;
};

std::unique_ptr<GenerationClient> Connect(const std::string& address) {
  absl::StatusOr<std::unique_ptr<GenerationClient>> client = GenerationClient::Create({.server = address});
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

TEST(GenerationClientTest, DeliversEventsInOrderAndTheResult) {
  FakeImageService server([](auto*, const auto& request, auto* writer) {
    SendWholeRequest(writer, request.seed());
    return grpc::Status::OK;
  });
  GenerationRequest request;
  request.seed = 9;
  RecordingObserver observer;
  const auto result = Connect(server.address())->Generate(request, &observer, nullptr);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(observer.events, ElementsAre("queued 1", "started 2", "progress 1 500ms", "preview 1 preview"));
  EXPECT_EQ(result->seed, 9u);
  EXPECT_EQ(result->image.data, "result");
  EXPECT_EQ(result->image.width, 32);
  EXPECT_EQ(result->timings.total, absl::Seconds(2));
  EXPECT_EQ(result->model_fingerprint, "f00d");
}

TEST(GenerationClientTest, SendsWhatIsSetAndOnlyThat) {
  std::vector<v1::GenerateImageRequest> seen;
  FakeImageService server([&](auto*, const auto& request, auto* writer) {
    seen.push_back(request);
    SendWholeRequest(writer, 1);
    return grpc::Status::OK;
  });
  const auto client = Connect(server.address());
  RecordingObserver observer;
  GenerationRequest request;
  request.prompt = "p";
  ASSERT_TRUE(client->Generate(request, &observer, nullptr).ok());
  request.num_steps = 12;
  request.guidance_interval = {0.25f, 0.75f};
  request.size = {64, 48};
  request.preview_every_steps = 3;
  request.preview_kind = PreviewKind::kVae;
  request.preview_max_side = 99;
  request.output_format = PictureFormat::kWebp;
  request.priority = RequestPriority::kLow;
  ASSERT_TRUE(client->Generate(request, &observer, nullptr).ok());
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].prompt(), "p");
  EXPECT_FALSE(seen[0].has_seed() || seen[0].has_num_inference_steps() || seen[0].has_guidance_scale() ||
               seen[0].has_timestep_shift() || seen[0].has_guidance_interval() || seen[0].has_width() ||
               seen[0].has_preview());
  EXPECT_EQ(seen[1].num_inference_steps(), 12);
  EXPECT_EQ(seen[1].guidance_interval().start(), 0.25f);
  EXPECT_EQ(seen[1].guidance_interval().end(), 0.75f);
  EXPECT_EQ(seen[1].width(), 64);
  EXPECT_EQ(seen[1].height(), 48);
  EXPECT_EQ(seen[1].preview().every_n_steps(), 3);
  EXPECT_EQ(seen[1].preview().method(), v1::PREVIEW_METHOD_VAE);
  EXPECT_EQ(seen[1].preview().format(), v1::IMAGE_FORMAT_JPEG);
  EXPECT_EQ(seen[1].preview().max_side(), 99);
  EXPECT_EQ(seen[1].output_format(), v1::IMAGE_FORMAT_WEBP);
  EXPECT_EQ(seen[1].priority(), v1::PRIORITY_LOW);
}

TEST(GenerationClientTest, TriesAgainWhileNothingHasCome) {
  std::atomic<int> calls = 0;
  FakeImageService server([&](auto*, const auto&, auto* writer) {
    if (++calls < 3) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
    SendWholeRequest(writer, 1);
    return grpc::Status::OK;
  });
  RecordingObserver observer;
  EXPECT_TRUE(Connect(server.address())->Generate({}, &observer, nullptr).ok());
  EXPECT_EQ(calls, 3);
}

TEST(GenerationClientTest, NeverRepeatsARequestThatBegan) {
  std::atomic<int> calls = 0;
  FakeImageService server([&](auto*, const auto&, auto* writer) {
    ++calls;
    v1::GenerateImageResponse event;
    event.mutable_started();
    writer->Write(event);
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "a worker died");
  });
  RecordingObserver observer;
  const auto result = Connect(server.address())->Generate({}, &observer, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(result.status().message(), "a worker died");
  EXPECT_EQ(calls, 1);
}

TEST(GenerationClientTest, ARequestWithAKeyIsJoinedAgainAndHeardOnce) {
  std::atomic<int> calls = 0;
  FakeImageService server([&](auto*, const auto& request, auto* writer) {
    EXPECT_EQ(request.idempotency_key(), "key");
    if (++calls < 3) {
      v1::GenerateImageResponse event;
      event.mutable_started();
      writer->Write(event);
      event.mutable_preview()->set_step(1);
      writer->Write(event);
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server dies");
    }
    SendWholeRequest(writer, 2);
    return grpc::Status::OK;
  });
  RecordingObserver observer;
  GenerationRequest request;
  request.idempotency_key = "key";
  const auto result = Connect(server.address())->Generate(request, &observer, nullptr);
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(std::count_if(observer.events.begin(), observer.events.end(),
                          [](const std::string& event) { return absl::StartsWith(event, "started"); }),
            1);
}

TEST(GenerationClientTest, AServerThatStaysAwayIsGivenUp) {
  const auto client =
      GenerationClient::Create({.server = "127.0.0.1:1", .rejoin_for = absl::Milliseconds(50)});
  ASSERT_TRUE(client.ok());
  RecordingObserver observer;
  GenerationRequest request;
  request.idempotency_key = "key";
  EXPECT_EQ((*client)->Generate(request, &observer, nullptr).status().code(), absl::StatusCode::kUnavailable);
}

// Heard by `observer` of the texts of two streams of one answer.
TEST(RejoiningObserverTest, TextIsHeardOnceWhereverTheStreamBroke) {
  class Text final : public GenerationObserver {
   public:
    void OnDelta(absl::string_view text) override { all.append(text.data(), text.size()); }
    std::string all;
  };
  const std::string answer = "one two three";
  for (size_t broke = 0; broke <= answer.size(); ++broke) {
    Text text;
    RejoiningObserver observer(&text);
    observer.OnStream();
    for (size_t i = 0; i < broke; ++i) observer.OnDelta(answer.substr(i, 1));
    observer.OnStream();
    observer.OnDelta(answer.substr(0, broke + 2 < answer.size() ? broke + 2 : broke));
    observer.OnDelta(answer.substr(broke + 2 < answer.size() ? broke + 2 : broke));
    EXPECT_EQ(text.all, answer) << broke;
  }
}

// Says that it started, then waits for the client to go away.
grpc::Status StartAndWait(grpc::ServerContext* context, FakeImageService::Writer* writer) {
  v1::GenerateImageResponse event;
  event.mutable_started();
  while (!context->IsCancelled()) {
    if (!writer->Write(event)) break;
  }
  return grpc::Status::CANCELLED;
}

TEST(GenerationClientTest, CancelEndsTheCall) {
  FakeImageService server(
      [](auto* context, const auto&, auto* writer) { return StartAndWait(context, writer); });
  RecordingObserver observer;
  Cancellation cancellation;
  observer.on_started = [&] { cancellation.Cancel(); };
  const auto result = Connect(server.address())->Generate({}, &observer, &cancellation);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(cancellation.cancelled());
}

TEST(GenerationClientTest, CancelBeforeTheCallCounts) {
  FakeImageService server(
      [](auto* context, const auto&, auto* writer) { return StartAndWait(context, writer); });
  RecordingObserver observer;
  Cancellation cancellation;
  cancellation.Cancel();
  const auto result = Connect(server.address())->Generate({}, &observer, &cancellation);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

TEST(GenerationClientTest, TimeoutEndsTheCall) {
  FakeImageService server(
      [](auto* context, const auto&, auto* writer) { return StartAndWait(context, writer); });
  RecordingObserver observer;
  GenerationRequest request;
  request.timeout = absl::Milliseconds(200);
  const auto result = Connect(server.address())->Generate(request, &observer, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(GenerationClientTest, StreamWithoutResultIsAnError) {
  FakeImageService server([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  RecordingObserver observer;
  const auto result = Connect(server.address())->Generate({}, &observer, nullptr);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDataLoss);
}

TEST(GenerationClientTest, ModelDescription) {
  FakeImageService server([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  const auto info = Connect(server.address())->GetModelInfo(absl::Seconds(30));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->name, "fake");
  EXPECT_EQ(info->default_size, std::pair(256, 128));
  EXPECT_EQ(info->max_steps, 77);
  ASSERT_EQ(info->groups.size(), 1u);
  EXPECT_EQ(info->groups[0].state, "serving");
}

TEST(GenerationClientTest, EmptyServerIsRefused) {
  EXPECT_EQ(GenerationClient::Create({.server = ""}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lancet
