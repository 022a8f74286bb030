// The services over real gRPC on loopback; under TSan a smoke test only, as gRPC is not instrumented.
#include "coordinator/service/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <future>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_decoder.h"
#include "tests/coordinator/service/service_fixture.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

class ServerTest : public ServiceFixture {
 protected:
  // grpc.health.v1 by hand: "SERVING", "NOT_SERVING", or what went wrong.
  std::string Health(const std::string& service) {
    std::string request;
    if (!service.empty()) request = std::string("\x0a") + static_cast<char>(service.size()) + service;
    std::string response;
    const grpc::Status status = CallRaw("/grpc.health.v1.Health/Check", request, response);
    if (!status.ok()) return status.error_message();
    if (response == std::string("\x08\x01")) return "SERVING";
    return response == std::string("\x08\x02") ? "NOT_SERVING" : "unknown";
  }
};

TEST_F(ServerTest, AnswersWithEventsInOrderAndTheWholePicture) {
  StartServer();
  StartRanks();
  v1::GenerateImageRequest request = GoodRequest();
  request.set_width(64);
  request.set_height(48);
  request.mutable_preview()->set_every_n_steps(2);
  request.mutable_preview()->set_format(v1::IMAGE_FORMAT_PNG);
  const Outcome outcome = Generate(request);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  std::vector<int> kinds;
  for (const v1::GenerateImageResponse& event : outcome.events) kinds.push_back(event.event_case());
  // queued*, started, (progress | preview)*, result; each part may only grow.
  const auto stage = [](int kind) {
    if (kind == v1::GenerateImageResponse::kQueued) return 0;
    if (kind == v1::GenerateImageResponse::kStarted) return 1;
    return kind == v1::GenerateImageResponse::kResult ? 3 : 2;
  };
  for (size_t i = 1; i < kinds.size(); ++i) EXPECT_LE(stage(kinds[i - 1]), stage(kinds[i]));
  EXPECT_EQ(std::count(kinds.begin(), kinds.end(), v1::GenerateImageResponse::kStarted), 1);
  const v1::ImageResult* result = outcome.result();
  ASSERT_NE(result, nullptr);
  EXPECT_EQ(result->seed(), 7u);
  EXPECT_EQ(result->model_fingerprint(), "f00dfeed");
  EXPECT_EQ(result->image().width(), 64);
  EXPECT_EQ(result->image().height(), 48);
  EXPECT_EQ(result->image().format(), v1::IMAGE_FORMAT_PNG);
  EXPECT_TRUE(result->timings().has_total());
  const absl::StatusOr<RgbImage> decoded = DecodeImage(result->image().data(), {});
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->width, 64);
}

TEST_F(ServerTest, PreviewsArriveBeforeTheResult) {
  StartServer();
  StartRanks();
  gate_.Allow(3);  // prefill and two steps
  v1::GenerateImageRequest request = GoodRequest();
  request.mutable_preview()->set_every_n_steps(2);
  request.mutable_preview()->set_method(v1::PREVIEW_METHOD_VAE);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub_->GenerateImage(&context, request);
  v1::GenerateImageResponse event;
  do {
    ASSERT_TRUE(reader->Read(&event));
  } while (!event.has_preview());
  EXPECT_EQ(event.preview().step(), 2);
  EXPECT_EQ(event.preview().image().format(), v1::IMAGE_FORMAT_JPEG);
  EXPECT_EQ(event.preview().image().width(), 256);  // 32 pixels, scaled up by a whole factor
  gate_.Allow(1000);
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(event.has_result());
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(ServerTest, HealthAndModelInfoTellTheTruth) {
  StartServer();
  EXPECT_EQ(Health(""), "NOT_SERVING");
  EXPECT_EQ(Health("lancet.v1.ImageService"), "NOT_SERVING");
  StartRanks();
  EXPECT_EQ(Health(""), "SERVING");
  EXPECT_EQ(Health("lancet.v1.ImageService"), "SERVING");
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.name(), "fake");
  EXPECT_EQ(info.fingerprint(), "f00dfeed");
  EXPECT_EQ(info.default_width(), 32);
  EXPECT_EQ(info.limits().max_prompt_bytes(), Limits().max_prompt_bytes);
  ASSERT_EQ(info.groups_size(), 1);
  EXPECT_EQ(info.groups(0).name(), "main");
  EXPECT_EQ(info.groups(0).world_size(), 2);
  EXPECT_EQ(info.groups(0).state(), v1::GROUP_STATE_SERVING);
  EXPECT_EQ(info.groups(0).device(), "fake");
  ranks_[1]->Kill();
  ASSERT_TRUE(WaitReady(false));
  EXPECT_EQ(Health(""), "NOT_SERVING");
  EXPECT_EQ(Generate(GoodRequest()).status.error_code(), grpc::UNAVAILABLE);
}

TEST_F(ServerTest, ReflectionNamesTheService) {
  StartServer();
  std::string response;
  // ServerReflectionRequest{list_services: "*"}; one message is all we send and read.
  CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*", response);
  EXPECT_THAT(response, HasSubstr("lancet.v1.ImageService"));
  EXPECT_THAT(response, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(ServerTest, TwoClientsAtOnceBothGetTheirPicture) {
  StartServer();
  StartRanks();
  std::vector<std::thread> clients;
  std::atomic<int> ok{0};
  for (uint64_t seed : {1, 2, 3}) {
    clients.emplace_back([this, seed, &ok] {
      v1::GenerateImageRequest request = GoodRequest();
      request.set_seed(seed);
      const Outcome outcome = Generate(request);
      if (outcome.status.ok() && outcome.result() != nullptr && outcome.result()->seed() == seed) ++ok;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(ok, 3);
}

TEST_F(ServerTest, AFullQueueIsRefusedWithRetryInfo) {
  adjust = [](Dispatcher::Options& options) {
    options.core.max_active = 1;
    options.core.max_queue = 1;
  };
  StartServer();
  StartRanks();
  gate_.Allow(0);
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateImageResponse>>> readers;
  for (int i = 0; i < 2; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->GenerateImage(contexts.back().get(), GoodRequest()));
    v1::GenerateImageResponse event;
    ASSERT_TRUE(readers.back()->Read(&event));
    EXPECT_EQ(event.has_queued(), i == 1);
  }
  const Outcome refused = Generate(GoodRequest());
  EXPECT_EQ(refused.status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("queue is full"));
  EXPECT_THAT(refused.status.error_details(), HasSubstr("type.googleapis.com/google.rpc.RetryInfo"));
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& reader : readers) EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  gate_.Allow(1000);
  EXPECT_TRUE(GenerateUntilOk().ok());
}

TEST_F(ServerTest, AClientsDeadlineIsKept) {
  StartServer();
  StartRanks();
  gate_.Allow(0);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  const auto reader = stub_->GenerateImage(&context, GoodRequest());
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::DEADLINE_EXCEEDED);
  gate_.Allow(1000);
  EXPECT_TRUE(GenerateUntilOk().ok());
}

TEST_F(ServerTest, ARequestGoesOnWhenAKilledRankIsBack) {
  StartServer();
  StartRanks();
  gate_.Allow(3);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub_->GenerateImage(&context, GoodRequest());
  v1::GenerateImageResponse event;
  do {
    ASSERT_TRUE(reader->Read(&event));
  } while (!event.has_progress());
  ranks_[1]->Kill();
  ASSERT_TRUE(WaitReady(false));
  gate_.Allow(1000);
  StartRank(1);
  ASSERT_TRUE(WaitReady(true));
  bool has_result = false;
  while (reader->Read(&event)) {
    EXPECT_FALSE(event.has_started());
    has_result = has_result || event.has_result();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(has_result);
  EXPECT_TRUE(GenerateUntilOk().ok());
}

TEST_F(ServerTest, ARankOfAnotherCheckpointIsRefused) {
  StartServer();
  FakeRank stranger(worker_address(), 0, "beef", &gate_, /*has_vision=*/true);
  EXPECT_THAT(stranger.Join(), HasSubstr("fingerprint 'beef'"));
  StartRanks();
  EXPECT_TRUE(Generate(GoodRequest()).status.ok());
}

TEST_F(ServerTest, DrainingFinishesWhatWasAcceptedAndTakesNothingNew) {
  StartServer();
  StartRanks();
  gate_.Allow(2);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  const auto reader = stub_->GenerateImage(&context, GoodRequest());
  v1::GenerateImageResponse event;
  ASSERT_TRUE(reader->Read(&event));
  std::promise<void> idle;
  dispatcher_->Drain([&idle] { idle.set_value(); });
  ASSERT_TRUE(WaitReady(false));
  EXPECT_EQ(Health(""), "NOT_SERVING");
  EXPECT_EQ(Generate(GoodRequest()).status.error_code(), grpc::UNAVAILABLE);
  gate_.Allow(1000);
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(event.has_result());
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(idle.get_future().wait_for(kPatience), std::future_status::ready);
}

TEST_F(ServerTest, AnAddressThatIsTakenIsNamed) {
  StartServer();
  CoordinatorServer::Options options;
  Readiness readiness;
  options.listen = public_address();
  options.ranks = dispatcher_.get();
  options.readiness = &readiness;
  options.services.dispatcher = dispatcher_.get();
  options.services.readiness = &readiness;
  options.services.clock = &clock_;
  const auto second = CoordinatorServer::Create(std::move(options));
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(public_address()));
}

TEST(WritePortFileTest, WritesBothPortsOrSaysWhyNot) {
  const std::string path = ::testing::TempDir() + "/ports";
  ASSERT_TRUE(WritePortFile(path, {12, 34}).ok());
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "12 34\n");
  std::remove(path.c_str());
  EXPECT_THAT(std::string(WritePortFile("/nowhere/ports", {1, 2}).message()), HasSubstr("/nowhere/ports"));
}

}  // namespace
}  // namespace lancet
