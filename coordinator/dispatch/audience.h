// Who hears about one request: the stream of the call that brought it and those of calls that joined it later
// with the same idempotency key. A stream that joins is told in short what it missed: that the request
// started, how far it is, all of the text so far, the result.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/dispatch/event_stream.h"

namespace lancet {

// Thread-safe: previews come from the encoder's threads.
class Audience final : public EventSink {
 public:
  // `keeps`: whether streams may still join, so that text and result are remembered.
  explicit Audience(bool keeps) : keeps_(keeps) {}

  void Join(std::shared_ptr<EventStream> stream);
  // Forgets the stream; the others go on.
  void Leave(const EventStream* stream);

  void Push(ClientEvent event) override;
  bool cancelled() const override;
  // The first one counts.
  void End(const CallStatus& status);

  // Bytes of text and result that are remembered.
  size_t kept_bytes() const;

 private:
  void Remember(const ClientEvent& event);  // with mu_ held

  const bool keeps_;
  mutable std::mutex
      mu_;  // guards everything below; held while streams are told, so that all hear the same order
  std::vector<std::shared_ptr<EventStream>> streams_;
  std::optional<QueuedEvent> queued_;
  std::optional<StartedEvent> started_;
  std::optional<ProgressEvent> progress_;
  std::optional<DeltaEvent> text_;
  std::optional<ClientEvent> result_;
  std::optional<CallStatus> end_;
};

}  // namespace lancet
