// DispatcherCore on an event loop of its own: what gRPC's threads talk to. Every call copies, hands over and
// returns. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/dispatch/dispatcher_core.h"
#include "coordinator/dispatch/image_encoder.h"
#include "coordinator/dispatch/task_runner.h"
#include "coordinator/group/rank_link.h"

namespace lancet {

class Dispatcher final : public RankLinkHandler {
 public:
  struct Options {
    DispatcherCore::Options core;  // encoder and post are filled in
    const Clock* clock = nullptr;  // outlives the dispatcher
    int encoder_threads = 2;
    size_t max_encoder_tasks = 64;  // previews that wait for a codec; results are bounded by the calls
    size_t max_events = 4096;       // from ranks; a rank that floods the loop is cut off
    absl::Duration tick_interval = absl::Milliseconds(100);
  };

  explicit Dispatcher(Options options);
  // Shutdown().
  ~Dispatcher() override;

  // Requests. The stream of a submitted request always gets an end.
  void Submit(NewRequest request);
  void Cancel(uint64_t id);
  void OnCallDone(uint64_t id);

  // Ranks.
  void OnConnected(std::shared_ptr<RankLink> link) override;
  void OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message) override;
  void OnClosed(const std::shared_ptr<RankLink>& link, absl::Status reason) override;

  // As of the last tick or event; its time tells whether the loop lives.
  ServiceStatus Status() const;
  std::vector<GroupInfo> Groups() const { return Status().groups; }

  // Takes no new work; `idle` is called once, on the loop, when the last call is gone.
  void Drain(std::function<void()> idle);
  // Ends every call with UNAVAILABLE.
  void EndCalls();
  // Ends every call, then the loop and the encoder. Idempotent.
  void Shutdown();

 private:
  DispatcherCore::Options CoreOptions(Options& options);
  bool Post(std::function<void(absl::Time now)> task);
  void AfterEvent();

  const Clock* const clock_;
  // The encoder outlives the loop: the core's last tasks may still use it.
  TaskRunner encoder_pool_;
  PooledImageEncoder encoder_;
  DispatcherCore core_;         // touched on the loop only
  std::function<void()> idle_;  // likewise
  mutable std::mutex status_mu_;
  ServiceStatus status_;  // guarded by status_mu_
  TaskRunner loop_;
};

}  // namespace lancet
