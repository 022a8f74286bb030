// The rank's end of the stream to the coordinator, as an interface: gRPC in production, a fake on own threads
// in tests.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rank_messages.h"

namespace lancet {

// Receives what happens on one stream. Calls come one at a time, from threads of the transport; they must not
// block.
class CoordinatorStreamHandler {
 public:
  virtual ~CoordinatorStreamHandler() = default;
  virtual void OnMessage(CoordinatorMessage message) = 0;
  // The last call, once per started stream: `reason` is OK when the coordinator ended it in an orderly way.
  virtual void OnClosed(absl::Status reason) = 0;
};

// One stream. Thread-safe.
class CoordinatorStream {
 public:
  virtual ~CoordinatorStream() = default;

  // Begins to dial and to call the handler. Call once, before anything else.
  virtual void Start() = 0;
  // Queues a message behind earlier ones and returns. Unavailable when the stream is broken or closed,
  // ResourceExhausted when the coordinator has not read for so long that the bounded queue is full.
  virtual absl::Status Send(RankMessage message) = 0;
  // Says goodbye: sends what is queued, waits up to `grace` for the coordinator to end the stream, then cuts
  // it. No handler call is running or will come after it returns. Idempotent.
  virtual void Close(absl::Duration grace) = 0;
};

class CoordinatorConnector {
 public:
  virtual ~CoordinatorConnector() = default;
  // A stream that is not started yet. `handler` must outlive the stream's Close.
  virtual absl::StatusOr<std::unique_ptr<CoordinatorStream>> Connect(CoordinatorStreamHandler* handler) = 0;
};

}  // namespace lancet
