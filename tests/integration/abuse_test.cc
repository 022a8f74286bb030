// Clients that mean harm, against real processes: each is answered as docs/security.md says, memory stays
// bounded and a client that behaves is served all the while.
#include <arpa/inet.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lancet/v1/lancet.grpc.pb.h"
#include "tests/integration/await_condition.h"
#include "tests/integration/cluster.h"
#include "tests/integration/requests.h"

namespace lancet {
namespace {

constexpr char kGenerate[] = "/lancet.v1.ImageService/GenerateImage";
// What any of these attacks may add to the coordinator's memory: 64 KiB for each of 2,000 streams, and slack.
constexpr int64_t kMaxGrowthKib = 192 << 10;

int64_t ResidentKib(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    int64_t kib = 0;
    if (sscanf(line.c_str(), "VmRSS: %ld", &kib) == 1) return kib;
  }
  return 0;
}

class AbuseTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ClusterOptions options = NanoCluster(1);
    options.coordinator_flags.push_back("--client_stall_timeout=1s");
    auto cluster = Cluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    shared_cluster = cluster->release();
  }
  static void TearDownTestSuite() {
    delete shared_cluster;
    shared_cluster = nullptr;
  }
  void SetUp() override {
    ASSERT_NE(shared_cluster, nullptr);
    ExpectServed();
    resident_kib_ = ResidentKib(shared_cluster->coordinator().pid());
    ASSERT_GT(resident_kib_, 0);
  }
  void TearDown() override {
    ExpectServed();
    EXPECT_LT(ResidentKib(shared_cluster->coordinator().pid()) - resident_kib_, kMaxGrowthKib);
  }

  static void ExpectServed() {
    EventLog events;
    GenerationRequest request = MakeRequest("a cat", 2);
    request.timeout = absl::Seconds(30);
    // While thousands of streams end at once there may be too many calls for a moment; a client that behaves
    // comes again, as it is told.
    absl::StatusOr<GenerationResult> result = absl::UnknownError("not asked");
    AwaitCondition(
        [&] {
          result = shared_cluster->client().Generate(request, &events, nullptr);
          return !absl::IsResourceExhausted(result.status());
        },
        absl::Seconds(10));
    EXPECT_TRUE(result.ok()) << result.status() << shared_cluster->Logs();
  }
  // A connection of its own.
  static std::shared_ptr<grpc::Channel> NewChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(shared_cluster->address(), grpc::InsecureChannelCredentials(),
                                     arguments);
  }
  // A unary call of raw bytes, however many.
  static grpc::Status CallRaw(const std::string& method, const std::string& bytes,
                              const std::vector<std::pair<std::string, std::string>>& metadata = {}) {
    grpc::GenericStub stub(NewChannel());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
    grpc::CompletionQueue queue;
    const grpc::Slice slice(bytes);
    const auto call = stub.PrepareUnaryCall(&context, method, grpc::ByteBuffer(&slice, 1), &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return status;
  }
  static int Connect() {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const std::string text = shared_cluster->address();
    address.sin_port = htons(static_cast<uint16_t>(std::stoi(text.substr(text.rfind(':') + 1))));
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval timeout{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return fd;
  }
  // Sends the bytes `times` times or until the server ends the connection.
  static bool SendAll(int fd, const std::string& bytes, int times = 1) {
    for (int i = 0; i < times; ++i) {
      if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
        return false;
    }
    return true;
  }
  // An HTTP/2 frame (RFC 9113, 4.1).
  static std::string Frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
    std::string frame;
    for (const int shift : {16, 8, 0}) frame += static_cast<char>(payload.size() >> shift);
    frame += static_cast<char>(type);
    frame += static_cast<char>(flags);
    for (const int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift);
    return frame + payload;
  }

  static Cluster* shared_cluster;
  int64_t resident_kib_ = 0;
};

Cluster* AbuseTest::shared_cluster = nullptr;
constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

TEST_F(AbuseTest, TwoThousandStreamsThatSayNothing) {
  constexpr int kConnections = 20;
  constexpr int kStreams = 100;  // as many as a connection may have
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call;
  };
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int c = 0; c < kConnections; ++c) {
    stubs.push_back(std::make_unique<grpc::GenericStub>(NewChannel()));
    for (int s = 0; s < kStreams; ++s) {
      auto stream = std::make_unique<Stream>();
      stream->call = stubs.back()->PrepareCall(&stream->context, kGenerate, &queue);
      stream->call->StartCall(stream.get());
      streams.push_back(std::move(stream));
    }
  }
  int started = 0;
  for (size_t i = 0; i < streams.size(); ++i) {
    void* tag = nullptr;
    bool ok = false;
    ASSERT_EQ(queue.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + std::chrono::seconds(60)),
              grpc::CompletionQueue::GOT_EVENT);
    started += ok ? 1 : 0;
  }
  EXPECT_EQ(started, kConnections * kStreams);
  ExpectServed();
  EXPECT_LT(ResidentKib(shared_cluster->coordinator().pid()) - resident_kib_, kMaxGrowthKib);
  for (const auto& stream : streams) stream->context.TryCancel();
  streams.clear();
  queue.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue.Next(&tag, &ok)) {
  }
}

TEST_F(AbuseTest, ConnectionsThatSayNothing) {
  std::vector<int> connections;
  for (int i = 0; i < 300; ++i) connections.push_back(Connect());
  ExpectServed();
  for (const int fd : connections) close(fd);
}

TEST_F(AbuseTest, HeadersBeyondTheLimit) {
  const grpc::Status status = CallRaw(kGenerate, "", {{"x-flood", std::string(20000, 'x')}});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  // What is within it may be anything.
  v1::GenerateImageRequest small;
  small.set_width(64);
  small.set_height(64);
  small.set_num_inference_steps(2);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  context.AddMetadata("traceparent", "nonsense");
  context.AddMetadata("x-some", std::string(1000, 'x'));
  const auto reader = v1::ImageService::NewStub(NewChannel())->GenerateImage(&context, small);
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::OK);
}

TEST_F(AbuseTest, HeadersThatNeverEnd) {
  const int fd = Connect();
  ASSERT_TRUE(SendAll(fd, kPreface + Frame(4, 0, 0, "")));
  // A literal field whose name and value are new, 1,000 bytes each time; END_HEADERS never comes.
  std::string field =
      std::string("\x00\x01", 2) + "x" + std::string("\x7f\xe9\x06", 3) + std::string(1000, 'y');
  ASSERT_TRUE(SendAll(fd, Frame(1, 0, 1, field)));
  std::string many;
  for (int i = 0; i < 16; ++i) many += field;
  // 64 MiB in all, unless the server ends it.
  std::thread flood([&] { SendAll(fd, Frame(9, 0, 1, many.substr(0, 16000 - 16000 % field.size())), 4096); });
  ExpectServed();
  flood.join();
  EXPECT_LT(ResidentKib(shared_cluster->coordinator().pid()) - resident_kib_, kMaxGrowthKib);
  close(fd);
}

TEST_F(AbuseTest, MessagesBeyondTheLimit) {
  const grpc::Status status = CallRaw(kGenerate, std::string(18 << 20, 'x'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
}

TEST_F(AbuseTest, MessagesThatAreHalfSent) {
  std::vector<int> connections;
  for (int i = 0; i < 50; ++i) {
    const int fd = Connect();
    // :method POST, :scheme http, :path, content-type; then a message of 16 MiB of which one byte comes.
    const std::string path = kGenerate;
    const std::string headers = std::string("\x83\x86\x44", 3) + static_cast<char>(path.size()) + path +
                                std::string("\x5f\x10", 2) + "application/grpc" +
                                std::string("\x40\x02te\x08trailers", 13);
    EXPECT_TRUE(SendAll(fd, kPreface + Frame(4, 0, 0, "") + Frame(1, 4, 1, headers) +
                                Frame(0, 0, 1, std::string("\x00\x01\x00\x00\x00", 5) + "x")));
    connections.push_back(fd);
  }
  ExpectServed();
  EXPECT_LT(ResidentKib(shared_cluster->coordinator().pid()) - resident_kib_, kMaxGrowthKib);
  for (const int fd : connections) close(fd);
}

TEST_F(AbuseTest, PingsWithoutPause) {
  const int fd = Connect();
  ASSERT_TRUE(SendAll(fd, kPreface + Frame(4, 0, 0, "")));
  // The server ends the connection.
  const auto ended = [&] {
    for (int i = 0; i < 100; ++i) SendAll(fd, Frame(6, 0, 0, "12345678"));
    char buffer[4096];
    const ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
  };
  EXPECT_TRUE(AwaitCondition(ended, absl::Seconds(30)));
  close(fd);
}

TEST_F(AbuseTest, ReadersThatDoNotRead) {
  constexpr int kReaders = 20;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateImageResponse>>> readers;
  v1::GenerateImageRequest request;
  request.set_prompt("a cat");
  request.set_width(256);
  request.set_height(256);
  request.set_num_inference_steps(4);
  request.mutable_preview()->set_every_n_steps(1);
  request.mutable_preview()->set_method(v1::PREVIEW_METHOD_VAE);
  request.mutable_preview()->set_format(v1::IMAGE_FORMAT_PNG);
  for (int i = 0; i < kReaders; ++i) {
    channels.push_back(NewChannel());
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(
        v1::ImageService::NewStub(channels.back())->GenerateImage(contexts.back().get(), request));
  }
  ExpectServed();
  // Each is over for the server, whether or not its last bytes were taken.
  EXPECT_TRUE(AwaitCondition(
      [] {
        const auto info = shared_cluster->client().GetModelInfo(kClusterDeadline);
        return info.ok() && info->groups.size() == 1 && info->groups[0].active_requests == 0;
      },
      kClusterDeadline));
  for (auto& context : contexts) context->TryCancel();
  for (auto& reader : readers) reader->Finish();
}

}  // namespace
}  // namespace lancet
