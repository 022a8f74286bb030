#include "coordinator/dispatch/audience.h"

#include <algorithm>
#include <utility>
#include <variant>

namespace lancet {

void Audience::Join(std::shared_ptr<EventStream> stream) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (queued_.has_value()) stream->Push(*queued_);
  if (started_.has_value()) stream->Push(*started_);
  if (progress_.has_value()) stream->Push(*progress_);
  if (text_.has_value()) stream->Push(*text_);
  if (result_.has_value()) stream->Push(*result_);
  if (end_.has_value()) stream->End(*end_);
  streams_.push_back(std::move(stream));
}

void Audience::Leave(const EventStream* stream) {
  const std::lock_guard<std::mutex> lock(mu_);
  std::erase_if(streams_, [stream](const auto& other) { return other.get() == stream; });
}

void Audience::Push(ClientEvent event) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (keeps_) Remember(event);
  for (size_t i = 0; i + 1 < streams_.size(); ++i) streams_[i]->Push(event);
  if (!streams_.empty()) streams_.back()->Push(std::move(event));
}

void Audience::Remember(const ClientEvent& event) {
  if (const auto* queued = std::get_if<QueuedEvent>(&event)) {
    if (!started_.has_value()) queued_ = *queued;
  } else if (const auto* started = std::get_if<StartedEvent>(&event)) {
    if (!started_.has_value()) started_ = *started;
    queued_.reset();
  } else if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
    progress_ = *progress;
  } else if (const auto* delta = std::get_if<DeltaEvent>(&event)) {
    if (!text_.has_value()) text_.emplace();
    text_->text += delta->text;
    text_->token_count = delta->token_count;
  } else if (std::holds_alternative<ResultEvent>(event) || std::holds_alternative<TextResultEvent>(event)) {
    result_ = event;
  }
}

bool Audience::cancelled() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream->cancelled(); });
}

void Audience::End(const CallStatus& status) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (end_.has_value()) return;
  end_ = status;
  for (const auto& stream : streams_) stream->End(status);
}

size_t Audience::kept_bytes() const {
  const std::lock_guard<std::mutex> lock(mu_);
  size_t bytes = text_.has_value() ? text_->text.size() : 0;
  if (!result_.has_value()) return bytes;
  if (const auto* picture = std::get_if<ResultEvent>(&*result_)) bytes += picture->image.data.size();
  if (const auto* text = std::get_if<TextResultEvent>(&*result_)) bytes += text->text.size();
  return bytes;
}

}  // namespace lancet
