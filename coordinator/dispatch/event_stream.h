// The mailbox between what happens to a request and the call that tells the client. It holds at most one
// event of each kind: a newer queued, progress or preview event replaces one that was not sent yet, started
// and result are sent once. A text delta that was not sent yet takes in the next one, so none is lost. A
// client that reads slowly costs one preview, one answer and one result, not memory.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <variant>

#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/dispatch/events.h"

namespace lancet {

// The sending side: a gRPC reactor in production.
class StreamWriter {
 public:
  virtual ~StreamWriter() = default;
  // Take() may have something. Called from any thread and without a lock held; must not block.
  virtual void OnReady() = 0;
  // The client does not read: break the connection off.
  virtual void Cut() = 0;
};

// What events are pushed to, from any thread.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void Push(ClientEvent event) = 0;
  // Nobody listens any more.
  virtual bool cancelled() const = 0;
};

// Thread-safe. Shared between the dispatcher, the encoder's threads and the call.
class EventStream final : public EventSink {
 public:
  // `clock` outlives the stream.
  explicit EventStream(const Clock* clock) : clock_(clock) {}

  // Once, before anything else. Weak: a call that is over must not be kept by a task that still encodes for
  // it.
  void SetWriter(std::weak_ptr<StreamWriter> writer);

  // Producers. Ignored after End or, but for the end, after a result.
  void Push(ClientEvent event) override;
  // The first one counts. On an error, events that were not sent are dropped, but for started and text.
  void End(CallStatus status);

  // The writer: the next thing to send, in the order of lancet.proto, or nothing. After an event comes
  // Sent(), and nothing is handed out until then. The CallStatus comes last, once.
  std::optional<std::variant<ClientEvent, CallStatus>> Take();
  void Sent();

  // The client went away; may be called at any time.
  void SetCancelled();
  bool cancelled() const override;

  // How long the event that was taken last has been on its way; zero if it was sent.
  absl::Duration Stalled(absl::Time now) const;
  void CutWriter();

 private:
  void Notify();

  const Clock* const clock_;
  mutable std::mutex mu_;  // guards everything below; std::mutex so that TSan sees it
  std::weak_ptr<StreamWriter> writer_;
  std::optional<QueuedEvent> queued_;
  std::optional<StartedEvent> started_;
  std::optional<ProgressEvent> progress_;
  std::optional<PreviewEvent> preview_;
  std::optional<DeltaEvent> delta_;
  std::optional<ResultEvent> result_;
  std::optional<TextResultEvent> text_result_;
  std::optional<CallStatus> end_;
  bool has_started_ = false;
  bool has_result_ = false;
  bool ended_ = false;
  bool sending_ = false;
  bool cancelled_ = false;
  absl::Time sending_since_;
};

}  // namespace lancet
