#include "coordinator/dispatch/event_stream.h"

#include <utility>

namespace lancet {
namespace {

// Moves a slot's event out.
template <typename Event>
std::variant<ClientEvent, CallStatus> Drain(std::optional<Event>& slot) {
  return ClientEvent(*std::exchange(slot, std::nullopt));
}

}  // namespace

void EventStream::SetWriter(std::weak_ptr<StreamWriter> writer) {
  const std::lock_guard<std::mutex> lock(mu_);
  writer_ = std::move(writer);
}

void EventStream::Push(ClientEvent event) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (ended_ || has_result_) return;
    if (auto* queued = std::get_if<QueuedEvent>(&event)) {
      if (has_started_) return;
      queued_ = *queued;
    } else if (auto* started = std::get_if<StartedEvent>(&event)) {
      if (has_started_) return;
      has_started_ = true;
      queued_.reset();
      started_ = std::move(*started);
    } else if (auto* progress = std::get_if<ProgressEvent>(&event)) {
      progress_ = *progress;
    } else if (auto* preview = std::get_if<PreviewEvent>(&event)) {
      preview_ = std::move(*preview);
    } else if (auto* delta = std::get_if<DeltaEvent>(&event)) {
      if (!delta_.has_value()) delta_.emplace();
      delta_->text += delta->text;
      delta_->token_count = delta->token_count;
    } else if (auto* text = std::get_if<TextResultEvent>(&event)) {
      has_result_ = true;
      text_result_ = std::move(*text);
    } else {
      has_result_ = true;
      result_ = std::get<ResultEvent>(std::move(event));
    }
  }
  Notify();
}

void EventStream::End(CallStatus status) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (ended_) return;
    ended_ = true;
    if (!status.status.ok()) {
      queued_.reset();
      progress_.reset();
      preview_.reset();
      result_.reset();
      text_result_.reset();
    }
    end_ = std::move(status);
  }
  Notify();
}

std::optional<std::variant<ClientEvent, CallStatus>> EventStream::Take() {
  const std::lock_guard<std::mutex> lock(mu_);
  if (sending_) return std::nullopt;
  std::optional<std::variant<ClientEvent, CallStatus>> next;
  if (queued_.has_value()) {
    next = Drain(queued_);
  } else if (started_.has_value()) {
    next = Drain(started_);
  } else if (progress_.has_value() && !(preview_.has_value() && preview_->step < progress_->step)) {
    next = Drain(progress_);
  } else if (preview_.has_value()) {
    next = Drain(preview_);
  } else if (delta_.has_value()) {
    next = Drain(delta_);
  } else if (result_.has_value()) {
    next = Drain(result_);
  } else if (text_result_.has_value()) {
    next = Drain(text_result_);
  } else if (end_.has_value()) {
    next = *std::move(end_);
    end_.reset();
  }
  if (next.has_value()) {
    sending_ = true;
    sending_since_ = clock_->Now();
  }
  return next;
}

void EventStream::Sent() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    sending_ = false;
  }
  Notify();
}

void EventStream::SetCancelled() {
  const std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
}

bool EventStream::cancelled() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return cancelled_;
}

absl::Duration EventStream::Stalled(absl::Time now) const {
  const std::lock_guard<std::mutex> lock(mu_);
  return sending_ ? now - sending_since_ : absl::ZeroDuration();
}

void EventStream::CutWriter() {
  std::shared_ptr<StreamWriter> writer;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    writer = writer_.lock();
  }
  if (writer != nullptr) writer->Cut();
}

void EventStream::Notify() {
  std::shared_ptr<StreamWriter> writer;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    writer = writer_.lock();
  }
  if (writer != nullptr) writer->OnReady();
}

}  // namespace lancet
