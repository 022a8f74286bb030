#include "coordinator/dispatch/dispatcher.h"

#include <utility>

#include "common/logging.h"

namespace lancet {

DispatcherCore::Options Dispatcher::CoreOptions(Options& options) {
  DispatcherCore::Options core = std::move(options.core);
  core.encoder = &encoder_;
  core.post = [this](std::function<void(absl::Time)> task) { return Post(std::move(task)); };
  return core;
}

Dispatcher::Dispatcher(Options options)
    : clock_(options.clock),
      encoder_pool_(
          {.num_threads = options.encoder_threads, .capacity = options.max_encoder_tasks, .tick = nullptr}),
      encoder_(&encoder_pool_),
      core_(CoreOptions(options)),
      loop_({.num_threads = 1,
             .capacity = options.max_events,
             .tick_interval = options.tick_interval,
             .tick = [this] {
               core_.Tick(clock_->Now());
               AfterEvent();
             }}) {}

Dispatcher::~Dispatcher() { Shutdown(); }

bool Dispatcher::Post(std::function<void(absl::Time)> task) {
  return loop_.Post([this, task = std::move(task)] {
    task(clock_->Now());
    AfterEvent();
  });
}

void Dispatcher::AfterEvent() {
  ServiceStatus status = core_.Status(clock_->Now());
  {
    const std::lock_guard<std::mutex> lock(status_mu_);
    std::swap(status_, status);
  }
  if (idle_ != nullptr && core_.idle()) std::exchange(idle_, nullptr)();
}

void Dispatcher::Submit(NewRequest request) {
  auto shared = std::make_shared<NewRequest>(std::move(request));  // a std::function must be copyable
  if (!Post([this, shared](absl::Time now) { core_.Submit(std::move(*shared), now); })) {
    shared->stream->End({absl::UnavailableError("the server stops"), std::nullopt});
  }
}

void Dispatcher::Cancel(uint64_t id) {
  Post([this, id](absl::Time now) { core_.Cancel(id, now); });
}

void Dispatcher::OnCallDone(uint64_t id) {
  Post([this, id](absl::Time now) { core_.OnCallDone(id, now); });
}

void Dispatcher::OnConnected(std::shared_ptr<RankLink> link) {
  const bool posted = loop_.TryPost([this, link] {
    core_.OnConnected(link, clock_->Now());
    AfterEvent();
  });
  if (!posted) link->Close(/*flush=*/false);
}

void Dispatcher::OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message) {
  auto shared = std::make_shared<RankMessage>(std::move(message));  // a std::function must be copyable
  const bool posted = loop_.TryPost([this, link, shared] {
    core_.OnMessage(link, std::move(*shared), clock_->Now());
    AfterEvent();
  });
  if (posted) return;
  LogWarning("message of a rank dropped: the event loop is full");
  link->Close(/*flush=*/false);
}

void Dispatcher::OnClosed(const std::shared_ptr<RankLink>& link, absl::Status reason) {
  Post([this, link, reason = std::move(reason)](absl::Time now) { core_.OnClosed(link, reason, now); });
}

ServiceStatus Dispatcher::Status() const {
  const std::lock_guard<std::mutex> lock(status_mu_);
  return status_;
}

void Dispatcher::Drain(std::function<void()> idle) {
  Post([this, idle = std::move(idle)](absl::Time) {
    core_.Drain();
    idle_ = idle;
  });
}

void Dispatcher::EndCalls() {
  Post([this](absl::Time now) { core_.Stop(now); });
}

void Dispatcher::Shutdown() {
  EndCalls();
  loop_.Stop();
  encoder_pool_.Stop();
}

}  // namespace lancet
