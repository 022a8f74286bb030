// The real server in this process with fake ranks at the other end of real streams. Ranks draw made-up
// pictures and do nothing until they may, so that tests decide how far a request gets.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "coordinator/dispatch/dispatcher.h"
#include "coordinator/service/readiness.h"
#include "coordinator/service/server.h"
#include "lancet/v1/lancet.grpc.pb.h"
#include "lancet/v1/worker.grpc.pb.h"
#include "tests/coordinator/testing/byte_tokenizer.h"

namespace lancet {

// No wait of these tests is longer; none of them takes nearly as long.
inline constexpr std::chrono::seconds kPatience(60);

// How many iterations the ranks may still execute. Thread-safe.
class Gate {
 public:
  void Allow(int iterations);
  // False when closed or out of patience.
  bool Pass();
  // Lets everybody go.
  void Close();

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  int allowed_ = 1 << 30;
  bool closed_ = false;

  friend class ServiceFixture;
};

// One rank: connects, registers, executes. Its thread ends when the stream does.
class FakeRank {
 public:
  FakeRank(const std::string& address, int rank, const std::string& fingerprint, Gate* gate, bool has_vision);
  ~FakeRank();

  // Breaks the stream off, as a killed process does.
  void Kill();
  // Waits for the end of the stream; why it was refused, or "".
  std::string Join();
  // Requests that were admitted and not released, after the last command.
  size_t num_admitted() const { return num_admitted_; }

 private:
  void Run(const std::string& address);
  v1::Done Execute(const v1::Command& command);

  const int rank_;
  const std::string fingerprint_;
  Gate* const gate_;
  const bool has_vision_;
  grpc::ClientContext context_;
  std::map<uint64_t, v1::RequestPlan> admitted_;
  std::atomic<size_t> num_admitted_{0};
  std::string refusal_;
  std::thread thread_;
};

class ServiceFixture : public ::testing::Test {
 protected:
  // What a client got.
  struct Outcome {
    grpc::Status status;
    std::vector<v1::GenerateImageResponse> events;
    const v1::ImageResult* result() const {
      return !events.empty() && events.back().has_result() ? &events.back().result() : nullptr;
    }
  };

  struct EditOutcome {
    grpc::Status status;
    std::vector<v1::EditImageResponse> events;
  };
  struct TextOutcome {
    grpc::Status status;
    std::vector<v1::DescribeImageResponse> events;
  };

  ServiceFixture();
  ~ServiceFixture() override;

  // Before StartServer: changes what is not default.
  std::function<void(Dispatcher::Options&)> adjust;
  bool has_vision = true;
  ServiceObserver* observer = nullptr;
  std::string token_file;
  std::function<void(CoordinatorServer::Options&)> adjust_server;

  void StartServer();
  // Two ranks; returns when the server is ready.
  void StartRanks();
  void StartRank(int rank);
  bool WaitReady(bool ready);
  // Whether `done` came true within patience.
  static bool WaitUntil(const std::function<bool()>& done);

  std::string public_address() const;
  std::string worker_address() const;
  std::shared_ptr<grpc::Channel> NewChannel(grpc::ChannelArguments arguments = {}) const;

  static v1::GenerateImageRequest GoodRequest();
  static const std::string& GoodPicture();  // a PNG file of 40 x 30
  static v1::EditImageRequest GoodEdit();
  // The fake ranks answer a question with its own bytes.
  static v1::DescribeImageRequest GoodQuestion();
  EditOutcome Edit(const v1::EditImageRequest& request);
  TextOutcome Describe(const v1::DescribeImageRequest& request);
  Outcome Generate(const v1::GenerateImageRequest& request);
  // Until a good request succeeds; OK if it did within patience.
  grpc::Status GenerateUntilOk();
  // A unary call of any method with any bytes.
  grpc::Status CallRaw(const std::string& method, const std::string& request, std::string& response);

  const SystemClock clock_;
  Gate gate_;
  Readiness readiness_;
  std::mutex ready_mu_;
  std::condition_variable ready_changed_;
  bool ready_ = false;  // guarded by ready_mu_
  const std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  std::unique_ptr<TaskRunner> admission_pool_;
  std::unique_ptr<TaskRunner> image_pool_;
  std::unique_ptr<AccessControl> access_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<CoordinatorServer> server_;
  std::map<int, std::unique_ptr<FakeRank>> ranks_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ImageService::Stub> stub_;
  std::unique_ptr<v1::TextService::Stub> text_stub_;
};

}  // namespace lancet
