// The dispatcher with real threads and no RPC: what TSan is to see. Two ranks on threads of their own answer
// at once; clients submit, read and cancel from others.
#include "coordinator/dispatch/dispatcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace lancet {
namespace {

constexpr std::chrono::seconds kLong(60);

// A rank: a link whose messages a thread of its own executes.
class ThreadRank final : public RankLink, public std::enable_shared_from_this<ThreadRank> {
 public:
  ThreadRank(int rank, RankLinkHandler* handler) : rank_(rank), handler_(handler) {}
  ~ThreadRank() override { Join(); }

  void Begin() {
    handler_->OnConnected(shared_from_this());
    thread_ = std::thread([this, self = shared_from_this()] { Run(self); });
  }
  void Send(CoordinatorMessage message) override {
    const std::lock_guard<std::mutex> lock(mu_);
    inbox_.push_back(std::move(message));
    wake_.notify_one();
  }
  void Close(bool) override {
    const std::lock_guard<std::mutex> lock(mu_);
    closed_ = true;
    wake_.notify_one();
  }
  void Join() {
    if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
    if (thread_.joinable()) thread_.detach();
  }

 private:
  void Run(const std::shared_ptr<RankLink>& self) {
    RegisterMessage info;
    info.group = "g";
    info.rank = rank_;
    info.world_size = 2;
    info.fingerprint = "f00d";
    info.max_latents = 64;
    info.max_rows = 1000;
    info.cache_tokens = 10000;
    info.max_requests = 4;
    handler_->OnMessage(self, std::move(info));
    while (std::optional<CoordinatorMessage> message = Next()) {
      if (const auto* form = std::get_if<FormMessage>(&*message)) {
        handler_->OnMessage(self, ReadyMessage{form->epoch});
      } else if (const auto* ping = std::get_if<PingMessage>(&*message)) {
        handler_->OnMessage(self, PongMessage{ping->id});
      } else if (const auto* command = std::get_if<CommandMessage>(&*message)) {
        handler_->OnMessage(self, Execute(*command));
      }
    }
    handler_->OnClosed(self, absl::OkStatus());
  }

  std::optional<CoordinatorMessage> Next() {
    std::unique_lock<std::mutex> lock(mu_);
    wake_.wait_for(lock, kLong, [this] { return closed_ || !inbox_.empty(); });
    if (inbox_.empty()) return std::nullopt;
    CoordinatorMessage message = std::move(inbox_.front());
    inbox_.pop_front();
    return message;
  }

  DoneMessage Execute(const CommandMessage& command) const {
    DoneMessage done{command.epoch, command.number, {}};
    const auto* iterate = std::get_if<IterateCommand>(&command.command);
    if (iterate == nullptr || rank_ != 0) return done;
    for (const Work& work : iterate->work) {
      WorkResult result;
      result.request_id = work.request_id;
      result.kind = work.kind;
      result.index = work.index;
      const RgbImage image{16, 16, std::vector<uint8_t>(16 * 16 * 3, 77)};
      if (work.preview != PreviewMethod::kNone) result.preview = image;
      if (work.kind == WorkKind::kDecode) result.image = image;
      done.results.push_back(std::move(result));
    }
    return done;
  }

  const int rank_;
  RankLinkHandler* const handler_;
  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<CoordinatorMessage> inbox_;
  bool closed_ = false;
  std::thread thread_;
};

// A client: reads whatever comes and keeps the outcome.
class Client final : public StreamWriter, public std::enable_shared_from_this<Client> {
 public:
  explicit Client(const Clock* clock) : stream(std::make_shared<EventStream>(clock)) {}

  void OnReady() override {
    while (auto next = stream->Take()) {
      if (auto* end = std::get_if<CallStatus>(&*next)) {
        outcome.set_value(end->status);
        return;
      }
      ++events;
      // Recurses through OnReady, like a transport whose writes succeed at once.
      stream->Sent();
    }
  }
  void Cut() override {}

  const std::shared_ptr<EventStream> stream;
  std::atomic<int> events{0};
  std::promise<absl::Status> outcome;
};

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() : dispatcher_(std::make_unique<Dispatcher>(Options())) {}

  Dispatcher::Options Options() {
    Dispatcher::Options options;
    options.clock = &clock_;
    options.tick_interval = absl::Milliseconds(10);
    options.core.recovery.group_wait = absl::Milliseconds(200);
    options.core.max_queue = 200;
    options.core.fingerprint = "f00d";
    options.core.registry.random = [] { return uint64_t{1}; };
    options.core.on_readiness = [this](bool serving, bool) {
      if (serving && !served_.exchange(true)) ready_.set_value();
    };
    return options;
  }

  void Serve() {
    for (int rank : {0, 1}) {
      ranks_.push_back(std::make_shared<ThreadRank>(rank, dispatcher_.get()));
      ranks_.back()->Begin();
    }
    ASSERT_EQ(ready_.get_future().wait_for(kLong), std::future_status::ready);
  }
  void StopRanks() {
    for (const auto& rank : ranks_) rank->Close(true);
    for (const auto& rank : ranks_) rank->Join();
  }

  std::shared_ptr<Client> Submit(uint64_t id, int steps = 5) {
    auto client = std::make_shared<Client>(&clock_);
    client->stream->SetWriter(client);
    NewRequest request;
    request.plan.request_id = id;
    request.plan.prefix.resize(1);
    request.plan.target.latent_height = 1;
    request.plan.target.latent_width = 1;
    request.plan.sampler.num_steps = steps;
    request.preview = PreviewPlan{};
    request.preview->max_side = 16;
    request.arrival = clock_.Now();
    request.stream = client->stream;
    dispatcher_->Submit(std::move(request));
    return client;
  }

  static absl::Status Outcome(Client& client) {
    std::future<absl::Status> future = client.outcome.get_future();
    if (future.wait_for(kLong) != std::future_status::ready) return absl::DeadlineExceededError("no outcome");
    return future.get();
  }

  const SystemClock clock_;
  std::atomic<bool> served_{false};
  std::promise<void> ready_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<std::shared_ptr<ThreadRank>> ranks_;
};

TEST_F(DispatcherTest, ServesManyClientsAtOnce) {
  Serve();
  std::vector<std::thread> threads;
  std::atomic<int> ok{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t, &ok] {
      for (int i = 0; i < 5; ++i) {
        const uint64_t id = 100 * t + i + 1;
        const std::shared_ptr<Client> client = Submit(id);
        if (Outcome(*client).ok() && client->events >= 2) ++ok;
        dispatcher_->OnCallDone(id);
        dispatcher_->Groups();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ok, 20);
  StopRanks();
}

TEST_F(DispatcherTest, CancelsRaceWithWork) {
  Serve();
  std::vector<std::shared_ptr<Client>> clients;
  for (uint64_t id = 1; id <= 20; ++id) {
    clients.push_back(Submit(id, 50));
    if (id % 2 == 0) {
      clients.back()->stream->SetCancelled();
      dispatcher_->Cancel(id);
    }
  }
  for (uint64_t id = 1; id <= 20; ++id) {
    const absl::Status outcome = Outcome(*clients[id - 1]);
    EXPECT_EQ(outcome.code(), id % 2 == 0 ? absl::StatusCode::kCancelled : absl::StatusCode::kOk) << id;
    dispatcher_->OnCallDone(id);
  }
  StopRanks();
}

TEST_F(DispatcherTest, ARankThatLeavesForGoodFailsTheRequestInTheEnd) {
  Serve();
  const std::shared_ptr<Client> client = Submit(1, 1000000);
  ranks_[1]->Close(true);
  EXPECT_EQ(Outcome(*client).code(), absl::StatusCode::kUnavailable);
  StopRanks();
}

TEST_F(DispatcherTest, DrainTellsWhenTheLastCallIsGone) {
  Serve();
  const std::shared_ptr<Client> client = Submit(1);
  std::promise<void> idle;
  dispatcher_->Drain([&idle] { idle.set_value(); });
  EXPECT_TRUE(Outcome(*client).ok());
  EXPECT_EQ(Outcome(*Submit(2)).code(), absl::StatusCode::kUnavailable);
  for (uint64_t id : {1, 2}) dispatcher_->OnCallDone(id);
  EXPECT_EQ(idle.get_future().wait_for(kLong), std::future_status::ready);
  StopRanks();
}

TEST_F(DispatcherTest, ShutdownEndsCallsAndLaterOnesAtOnce) {
  Serve();
  const std::shared_ptr<Client> client = Submit(1, 1000000);
  dispatcher_->Shutdown();
  EXPECT_EQ(Outcome(*client).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Outcome(*Submit(2)).code(), absl::StatusCode::kUnavailable);
  StopRanks();
}

}  // namespace
}  // namespace lancet
