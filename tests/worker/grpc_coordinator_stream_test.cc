// The rank's gRPC stream against a real server in this process.
#include "worker/grpc_coordinator_stream.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/rank_proof.h"
#include "gtest/gtest.h"
#include "lancet/v1/worker.grpc.pb.h"

namespace lancet {
namespace {

constexpr std::chrono::seconds kDeadline{30};

GrpcConnectorOptions OptionsFor(const std::string& address) {
  return {.address = address, .tls = false, .tls_files = {}, .server_name = "", .secret = ""};
}

class RecordingHandler final : public CoordinatorStreamHandler {
 public:
  void OnMessage(CoordinatorMessage message) override {
    const std::lock_guard<std::mutex> lock(mu_);
    messages_.push_back(std::move(message));
    changed_.notify_all();
  }
  void OnClosed(absl::Status reason) override {
    const std::lock_guard<std::mutex> lock(mu_);
    closed_.push_back(std::move(reason));
    changed_.notify_all();
  }
  bool AwaitMessages(size_t count) {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, kDeadline, [&] { return messages_.size() >= count; });
  }
  bool AwaitClosed() {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, kDeadline, [&] { return !closed_.empty(); });
  }
  std::deque<CoordinatorMessage> messages() {
    const std::lock_guard<std::mutex> lock(mu_);
    return messages_;
  }
  std::deque<absl::Status> closed() {
    const std::lock_guard<std::mutex> lock(mu_);
    return closed_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<CoordinatorMessage> messages_;
  std::deque<absl::Status> closed_;
};

// Runs `behaviour` for every stream.
class Server final : public v1::WorkerService::Service {
 public:
  using ServerStream = grpc::ServerReaderWriter<v1::ConnectResponse, v1::ConnectRequest>;

  explicit Server(std::function<grpc::Status(ServerStream*)> behaviour) : behaviour_(std::move(behaviour)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Server() override { server_->Shutdown(std::chrono::system_clock::now() + kDeadline); }
  grpc::Status Connect(grpc::ServerContext* context, ServerStream* stream) override {
    if (!nonce.empty()) context->AddInitialMetadata(kRankNonceKey, nonce);
    return behaviour_(stream);
  }
  std::string nonce;  // set before the first stream
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  const std::function<grpc::Status(ServerStream*)> behaviour_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST(GrpcCoordinatorStreamTest, CarriesMessagesBothWaysAndSaysGoodbye) {
  std::deque<v1::ConnectRequest> received;
  Server server([&](Server::ServerStream* stream) {
    v1::ConnectRequest request;
    while (stream->Read(&request)) {
      received.push_back(request);
      v1::ConnectResponse response;
      response.mutable_ping()->set_id(received.size());
      stream->Write(response);
    }
    return grpc::Status::OK;
  });
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(OptionsFor(server.address()));
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  EXPECT_EQ((*stream)->Send(PongMessage{1}).code(), absl::StatusCode::kUnavailable);  // not started
  (*stream)->Start();
  EXPECT_TRUE((*stream)->Send(ReadyMessage{5}).ok());
  EXPECT_TRUE((*stream)->Send(PongMessage{6}).ok());
  ASSERT_TRUE(handler.AwaitMessages(2));
  (*stream)->Close(absl::Seconds(30));
  // The server saw the end of the stream after both messages, and answered it.
  ASSERT_EQ(handler.closed().size(), 1u);
  EXPECT_TRUE(handler.closed()[0].ok()) << handler.closed()[0];
  ASSERT_EQ(received.size(), 2u);
  EXPECT_EQ(received[0].ready().epoch(), 5u);
  EXPECT_EQ(received[1].pong().id(), 6u);
  EXPECT_EQ(std::get<PingMessage>(handler.messages()[1]).id, 2u);
  EXPECT_EQ((*stream)->Send(PongMessage{1}).code(), absl::StatusCode::kUnavailable);
}

TEST(GrpcCoordinatorStreamTest, ProvesTheSecretForTheStreamsNonce) {
  std::vector<v1::ConnectRequest> received;
  Server server([&](Server::ServerStream* stream) {
    stream->SendInitialMetadata();
    v1::ConnectRequest request;
    while (stream->Read(&request)) {
      received.push_back(request);
      v1::ConnectResponse response;
      response.mutable_ping()->set_id(received.size());
      stream->Write(response);
    }
    return grpc::Status::OK;
  });
  server.nonce = "a nonce";
  GrpcConnectorOptions options = OptionsFor(server.address());
  options.secret = "sixteen bytes or more";
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(options);
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  RegisterMessage claim;
  claim.group = "g";
  claim.rank = 1;
  claim.world_size = 2;
  claim.fingerprint = "f00d";
  EXPECT_TRUE((*stream)->Send(claim).ok());
  EXPECT_TRUE((*stream)->Send(PongMessage{6}).ok());
  ASSERT_TRUE(handler.AwaitMessages(2));
  (*stream)->Close(absl::Seconds(30));
  ASSERT_EQ(received.size(), 2u);
  EXPECT_EQ(received[0].register_().proof(), RankProof(options.secret, "a nonce", {"g", 1, 2, "f00d"}));
  EXPECT_EQ(received[1].pong().id(), 6u);
}

TEST(GrpcCoordinatorStreamTest, ServesACoordinatorThatAsksForNoSecret) {
  std::vector<v1::ConnectRequest> received;
  Server server([&](Server::ServerStream* stream) {
    stream->SendInitialMetadata();
    v1::ConnectRequest request;
    while (stream->Read(&request)) received.push_back(request);
    return grpc::Status::OK;
  });
  GrpcConnectorOptions options = OptionsFor(server.address());
  options.secret = "sixteen bytes or more";
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(options);
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  EXPECT_TRUE((*stream)->Send(RegisterMessage{}).ok());
  (*stream)->Close(absl::Seconds(30));
  ASSERT_EQ(received.size(), 1u);
  EXPECT_EQ(received[0].register_().proof(), "");
}

TEST(GrpcCoordinatorStreamTest, ReportsWhyTheServerEndedTheStream) {
  Server server([](Server::ServerStream*) { return grpc::Status(grpc::StatusCode::ABORTED, "go away"); });
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(OptionsFor(server.address()));
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  ASSERT_TRUE(handler.AwaitClosed());
  EXPECT_EQ(handler.closed()[0].code(), absl::StatusCode::kAborted);
  EXPECT_EQ(handler.closed()[0].message(), "go away");
  (*stream)->Close(absl::Seconds(30));
  EXPECT_EQ(handler.closed().size(), 1u);
}

TEST(GrpcCoordinatorStreamTest, CutsAServerThatDoesNotAnswer) {
  Server server([](Server::ServerStream* stream) {
    v1::ConnectRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  });
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(OptionsFor(server.address()));
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  (*stream)->Close(absl::ZeroDuration());
  ASSERT_EQ(handler.closed().size(), 1u);
  EXPECT_EQ(handler.closed()[0].code(), absl::StatusCode::kCancelled);
}

TEST(GrpcCoordinatorStreamTest, NobodyThereIsUnavailable) {
  std::string address;
  {
    Server server([](Server::ServerStream*) { return grpc::Status::OK; });
    address = server.address();
  }
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(OptionsFor(address));
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  ASSERT_TRUE(handler.AwaitClosed());
  EXPECT_EQ(handler.closed()[0].code(), absl::StatusCode::kUnavailable);
}

TEST(GrpcCoordinatorStreamTest, SenselessMessageEndsTheStream) {
  Server server([](Server::ServerStream* stream) {
    stream->Write(v1::ConnectResponse());  // says nothing
    v1::ConnectRequest request;
    while (stream->Read(&request)) {
    }
    return grpc::Status::OK;
  });
  RecordingHandler handler;
  const auto connector = *MakeGrpcConnector(OptionsFor(server.address()));
  auto stream = connector->Connect(&handler);
  ASSERT_TRUE(stream.ok());
  (*stream)->Start();
  ASSERT_TRUE(handler.AwaitClosed());
  EXPECT_TRUE(handler.messages().empty());
}

}  // namespace
}  // namespace lancet
