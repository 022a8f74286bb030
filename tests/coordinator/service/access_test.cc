// Who is let in by the real server, and with what answer others are turned away.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/rank_proof.h"
#include "lancet/v1/admin.grpc.pb.h"
#include "tests/coordinator/service/service_fixture.h"
#include "tests/testing/certificates.h"

namespace lancet {
namespace {

using ::testing::HasSubstr;

constexpr char kSecret[] = "sixteen bytes or more";

class AccessTest : public ServiceFixture {
 protected:
  void AskForTokens(const std::string& alice_limits = "") {
    token_file = WriteTestFile(::testing::TempDir(), "access_tokens",
                               absl::StrCat("alice sha256:", ToHex(Sha256("a-token")), " ", alice_limits,
                                            "\nops sha256:", ToHex(Sha256("o-token")), " admin\n"));
    adjust_server = [](CoordinatorServer::Options& options) { options.introspection = false; };
  }

  grpc::Status GenerateWith(const std::string& authorization, const v1::GenerateImageRequest& request) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    const auto reader = stub_->GenerateImage(&context, request);
    v1::GenerateImageResponse event;
    while (reader->Read(&event)) {
    }
    return reader->Finish();
  }
  grpc::Status StatusWith(const std::string& authorization, v1::GetStatusResponse& response) {
    grpc::ClientContext context;
    if (!authorization.empty()) context.AddMetadata("authorization", authorization);
    return v1::AdminService::NewStub(channel_)->GetStatus(&context, v1::GetStatusRequest(), &response);
  }
};

TEST_F(AccessTest, EveryMethodAsksForAToken) {
  AskForTokens();
  StartServer();
  StartRanks();
  EXPECT_TRUE(GenerateWith("Bearer a-token", GoodRequest()).ok());
  for (const char* wrong : {"", "Bearer wrong", "Basic a-token"}) {
    EXPECT_EQ(GenerateWith(wrong, GoodRequest()).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  }
  EXPECT_EQ(Edit(GoodEdit()).status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Describe(GoodQuestion()).status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  std::string response;
  EXPECT_EQ(CallRaw("/lancet.v1.ImageService/GetModelInfo", "", response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  // Probes need none; who is not let in learns nothing of what there is.
  EXPECT_TRUE(CallRaw("/grpc.health.v1.Health/Check", "", response).ok());
  EXPECT_EQ(CallRaw("/grpc.channelz.v1.Channelz/GetServers", "", response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(AccessTest, StatusIsForAdmins) {
  AskForTokens();
  StartServer();
  StartRanks();
  v1::GetStatusResponse response;
  EXPECT_EQ(StatusWith("", response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(StatusWith("Bearer a-token", response).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  ASSERT_TRUE(StatusWith("Bearer o-token", response).ok());
  ASSERT_EQ(response.groups_size(), 1);
  EXPECT_EQ(response.groups(0).state(), v1::GROUP_STATE_SERVING);
  EXPECT_EQ(response.groups(0).rank_connected_size(), 2);
  EXPECT_TRUE(response.groups(0).rank_connected(1));
  EXPECT_EQ(response.max_queue(), 64);
}

TEST_F(AccessTest, LimitsOfATokenAreItsOwn) {
  AskForTokens("max_concurrent=1 pixel_steps_per_minute=100000");
  StartServer();
  StartRanks();
  gate_.Allow(0);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer a-token");
  const auto running = stub_->GenerateImage(&context, GoodRequest());
  v1::GenerateImageResponse event;
  ASSERT_TRUE(running->Read(&event));
  const grpc::Status second = GenerateWith("Bearer a-token", GoodRequest());
  EXPECT_EQ(second.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(second.error_message(), HasSubstr("the limit is 1"));
  EXPECT_FALSE(second.error_details().empty());  // when to come again
  gate_.Allow(1 << 20);
  EXPECT_TRUE(GenerateWith("Bearer o-token", GoodRequest()).ok());
  while (running->Read(&event)) {
  }
  EXPECT_TRUE(running->Finish().ok());
  v1::GenerateImageRequest large = GoodRequest();
  large.set_width(256);
  large.set_height(256);
  large.set_num_inference_steps(2);
  // The call before may not be over for the server when its client has everything.
  grpc::Status never;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  do {
    never = GenerateWith("Bearer a-token", large);
  } while (never.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
           std::chrono::steady_clock::now() < deadline);
  EXPECT_EQ(never.error_code(), grpc::StatusCode::FAILED_PRECONDITION) << never.error_message();
  EXPECT_THAT(never.error_message(), HasSubstr("131072"));
}

TEST_F(AccessTest, WhoJoinsARequestPaysNothing) {
  // Enough for one request and a half.
  v1::GenerateImageRequest request = GoodRequest();
  request.set_width(64);
  request.set_height(64);
  request.set_num_inference_steps(2);
  request.set_idempotency_key("key");
  AskForTokens("pixel_steps_per_minute=12288");
  StartServer();
  StartRanks();
  gate_.Allow(0);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer a-token");
  const auto running = stub_->GenerateImage(&context, request);
  v1::GenerateImageResponse event;
  ASSERT_TRUE(running->Read(&event));
  grpc::ClientContext again;
  again.AddMetadata("authorization", "Bearer a-token");
  const auto joined = stub_->GenerateImage(&again, request);
  ASSERT_TRUE(joined->Read(&event));
  v1::GenerateImageRequest other = request;
  other.set_idempotency_key("another");
  EXPECT_EQ(GenerateWith("Bearer a-token", other).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  gate_.Allow(1 << 20);
  for (const auto* reader : {&running, &joined}) {
    while ((*reader)->Read(&event)) {
    }
    EXPECT_TRUE((*reader)->Finish().ok());
  }
  // What is kept costs nothing either.
  EXPECT_TRUE(GenerateWith("Bearer a-token", request).ok());
}

TEST_F(AccessTest, RanksProveThatTheyKnowTheSecret) {
  std::atomic<int> refused{0};
  adjust_server = [&refused](CoordinatorServer::Options& options) {
    options.worker_secret = kSecret;
    options.introspection = false;  // it would stay on for the tests after this one
    options.on_rank_refused = [&refused] { ++refused; };
  };
  StartServer();
  const auto stub =
      v1::WorkerService::NewStub(grpc::CreateChannel(worker_address(), grpc::InsecureChannelCredentials()));
  v1::ConnectRequest first;
  v1::Register& claim = *first.mutable_register_();
  claim.set_group("main");
  claim.set_rank(0);
  claim.set_world_size(2);
  claim.set_fingerprint("f00dfeed");
  claim.set_host("h");
  claim.set_max_latents(10);
  claim.set_max_rows(10);
  claim.set_cache_tokens(10);
  claim.set_max_requests(1);

  // Registers with whatever `prove` makes of the nonce; the status of a stream that ended at once.
  const auto connect = [&](const std::function<std::string(const std::string&)>& prove, bool& stays) {
    grpc::ClientContext context;
    const auto stream = stub->Connect(&context);
    stream->WaitForInitialMetadata();
    const auto nonce = context.GetServerInitialMetadata().find(kRankNonceKey);
    EXPECT_NE(nonce, context.GetServerInitialMetadata().end());
    claim.set_proof(prove(std::string(nonce->second.data(), nonce->second.size())));
    stream->Write(first);
    v1::ConnectResponse response;
    stays = stream->Read(&response) && response.has_ping();
    if (stays) context.TryCancel();
    return stream->Finish();
  };
  const auto good = [&](const std::string& nonce) {
    return RankProof(kSecret, nonce, {"main", 0, 2, "f00dfeed"});
  };
  bool stays = true;
  EXPECT_EQ(connect([](const std::string&) { return ""; }, stays).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_FALSE(stays);
  EXPECT_EQ(connect(
                [](const std::string& nonce) {
                  return RankProof("another secret!!", nonce, {"main", 0, 2, "f00dfeed"});
                },
                stays)
                .error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  std::string overheard;
  connect([&](const std::string& nonce) { return overheard = good(nonce); }, stays);
  const int before = refused;
  EXPECT_EQ(before, 2);
  // The same Register again, on another stream.
  EXPECT_EQ(connect([&](const std::string&) { return overheard; }, stays).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_FALSE(stays);
  EXPECT_EQ(refused, 3);
}

}  // namespace
}  // namespace lancet
