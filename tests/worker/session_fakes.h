// A coordinator and an engine for tests of the worker session: no RPC, no weights, threads of the test's own.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"
#include "worker/coordinator_stream.h"
#include "worker/engine/engine.h"

namespace lancet {

// Far above what a healthy run takes, so that only a real hang meets it.
inline constexpr std::chrono::seconds kTestDeadline{30};

// What joins the two ends of one stream. Shared by both, because either may leave first.
class FakeLine {
 public:
  explicit FakeLine(CoordinatorStreamHandler* handler) : handler_(handler) {}

  void Open() {
    const std::lock_guard<std::mutex> lock(mu_);
    open_ = true;
  }
  bool open() {
    const std::lock_guard<std::mutex> lock(mu_);
    return open_;
  }
  // Does nothing once the line is closed.
  void Deliver(CoordinatorMessage message) {
    const std::lock_guard<std::mutex> calls(calls_mu_);
    if (open()) handler_->OnMessage(std::move(message));
  }
  void Break(const std::string& reason) {
    const std::lock_guard<std::mutex> calls(calls_mu_);
    {
      const std::lock_guard<std::mutex> lock(mu_);
      if (!open_) return;
      open_ = false;
    }
    handler_->OnClosed(absl::UnavailableError(reason));
  }

 private:
  CoordinatorStreamHandler* const handler_;
  std::mutex calls_mu_;  // held during handler calls: one at a time, and none after Break
  std::mutex mu_;
  bool open_ = false;  // guarded by mu_
};

// Accepts one stream at a time. Thread-safe.
class FakeCoordinator final : public CoordinatorConnector {
 public:
  absl::StatusOr<std::unique_ptr<CoordinatorStream>> Connect(CoordinatorStreamHandler* handler) override {
    const std::lock_guard<std::mutex> lock(mu_);
    ++connects_;
    changed_.notify_all();
    if (refuse_dialling_) return absl::UnavailableError("nobody answers");
    return std::make_unique<Stream>(this, std::make_shared<FakeLine>(handler));
  }

  // The next message of the rank as a T; nothing if it is something else or does not come.
  template <typename T>
  std::optional<T> Expect() {
    std::unique_lock<std::mutex> lock(mu_);
    if (!changed_.wait_for(lock, kTestDeadline, [this] { return !inbox_.empty(); })) return std::nullopt;
    RankMessage message = std::move(inbox_.front());
    inbox_.pop_front();
    if (!std::holds_alternative<T>(message)) return std::nullopt;
    return std::get<T>(std::move(message));
  }
  bool inbox_empty() {
    const std::lock_guard<std::mutex> lock(mu_);
    return inbox_.empty();
  }
  void Deliver(CoordinatorMessage message) {
    if (const std::shared_ptr<FakeLine> line = Line()) line->Deliver(std::move(message));
  }
  void Break(const std::string& reason) {
    if (const std::shared_ptr<FakeLine> line = Line()) line->Break(reason);
  }
  void RefuseDialling(bool refuse) {
    const std::lock_guard<std::mutex> lock(mu_);
    refuse_dialling_ = refuse;
  }
  int connects() {
    const std::lock_guard<std::mutex> lock(mu_);
    return connects_;
  }
  bool AwaitConnects(int count) {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, kTestDeadline, [this, count] { return connects_ >= count; });
  }

 private:
  // The rank's end. Everything that it sends lands in the inbox.
  class Stream final : public CoordinatorStream {
   public:
    Stream(FakeCoordinator* coordinator, std::shared_ptr<FakeLine> line)
        : coordinator_(coordinator), line_(std::move(line)) {}
    ~Stream() override { line_->Break("closed by the rank"); }
    void Start() override {
      line_->Open();
      const std::lock_guard<std::mutex> lock(coordinator_->mu_);
      coordinator_->line_ = line_;
    }
    absl::Status Send(RankMessage message) override {
      if (!line_->open()) return absl::UnavailableError("closed");
      const std::lock_guard<std::mutex> lock(coordinator_->mu_);
      coordinator_->inbox_.push_back(std::move(message));
      coordinator_->changed_.notify_all();
      return absl::OkStatus();
    }
    void Close(absl::Duration) override { line_->Break("closed by the rank"); }

   private:
    FakeCoordinator* const coordinator_;
    const std::shared_ptr<FakeLine> line_;
  };

  std::shared_ptr<FakeLine> Line() {
    const std::lock_guard<std::mutex> lock(mu_);
    return line_;
  }

  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<RankMessage> inbox_;
  std::shared_ptr<FakeLine> line_;  // of the newest stream
  int connects_ = 0;
  bool refuse_dialling_ = false;
};

// A group of which only this rank exists; Barrier blocks until Abort, as if the peers never came.
class FakeCollective final : public Collective {
 public:
  int rank() const override { return 0; }
  int world_size() const override { return 2; }
  absl::StatusOr<absl::Span<float>> PartialSumBuffer(size_t) override {
    return absl::UnimplementedError("unused");
  }
  absl::StatusOr<absl::Span<const float>> AllReduceSum(absl::Span<const float>, absl::Time) override {
    return absl::UnimplementedError("unused");
  }
  absl::Status AllGather(absl::Span<const std::byte>, absl::Span<std::byte>, absl::Time) override {
    return absl::UnimplementedError("unused");
  }
  absl::Status Broadcast(absl::Span<std::byte>, int, absl::Time) override {
    return absl::UnimplementedError("unused");
  }
  absl::Status Barrier(absl::Time) override {
    std::unique_lock<std::mutex> lock(mu_);
    waiting_ = true;
    changed_.notify_all();
    if (!changed_.wait_for(lock, kTestDeadline, [this] { return aborted_; })) {
      return absl::DeadlineExceededError("nobody aborted the barrier");
    }
    return absl::CancelledError("aborted");
  }
  absl::Status Check() override { return absl::UnimplementedError("unused"); }
  void Abort(absl::Status) override {
    const std::lock_guard<std::mutex> lock(mu_);
    aborted_ = true;
    changed_.notify_all();
  }
  bool AwaitBlocked() {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, kTestDeadline, [this] { return waiting_; });
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool waiting_ = false;
  bool aborted_ = false;
};

// Its iterations do not end before Unstick, whatever happens to the group.
inline constexpr uint64_t kStuckRequest = 13;

// Records the calls and answers as told. Only the executor thread calls it; what tests read is guarded.
class FakeEngine final : public Engine {
 public:
  size_t collective_capacity() const override { return 16; }
  std::string device() const override { return "fake"; }
  ModelLimits limits() const override { return {}; }
  absl::Status Attach(Collective* collective) override {
    Record("attach");
    collective_ = collective;
    return absl::OkStatus();
  }
  absl::Status WarmUp() override {
    Record("warm up");
    return warm_up_status;
  }
  absl::Status Admit(const RequestPlan& plan) override {
    Record("admit " + std::to_string(plan.request_id));
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<WorkResult>> Iterate(const std::vector<Work>& work) override {
    Record("iterate");
    std::vector<WorkResult> results;
    for (const Work& one : work) {
      // Work of request 0 needs the peers, who never come.
      if (one.request_id == 0) {
        const absl::Status status = collective_->Barrier(absl::InfiniteFuture());
        if (!status.ok()) return status;
      }
      if (one.request_id == kStuckRequest) {
        std::unique_lock<std::mutex> lock(mu_);
        stuck_ = true;
        changed_.notify_all();
        if (!changed_.wait_for(lock, kTestDeadline, [this] { return unstuck_; })) {
          return absl::DeadlineExceededError("nobody called Unstick");
        }
      }
      WorkResult& result = results.emplace_back();
      result.request_id = one.request_id;
      result.kind = one.kind;
      result.index = one.index;
    }
    return results;
  }
  absl::Status Release(uint64_t request_id) override {
    Record("release " + std::to_string(request_id));
    return request_id == 404 ? absl::NotFoundError("request 404 is unknown") : absl::OkStatus();
  }
  void set_trace(EngineTrace*) override {}

  bool AwaitStuck() {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, kTestDeadline, [this] { return stuck_; });
  }
  void Unstick() {
    const std::lock_guard<std::mutex> lock(mu_);
    unstuck_ = true;
    changed_.notify_all();
  }

  std::vector<std::string> calls() {
    const std::lock_guard<std::mutex> lock(mu_);
    return calls_;
  }

  absl::Status warm_up_status;  // set before the session starts

 private:
  void Record(std::string call) {
    const std::lock_guard<std::mutex> lock(mu_);
    calls_.push_back(std::move(call));
  }

  Collective* collective_ = nullptr;
  std::mutex mu_;  // guards everything below
  std::condition_variable changed_;
  bool stuck_ = false;
  bool unstuck_ = false;
  std::vector<std::string> calls_;
};

}  // namespace lancet
