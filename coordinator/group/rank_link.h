// The coordinator's end of the stream to one rank, as an interface: gRPC in production, fakes in tests.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "common/rank_messages.h"

namespace lancet {

// Thread-safe. Shared between the transport, which lives until its RPC is done, and the group, which may let
// go earlier.
class RankLink {
 public:
  virtual ~RankLink() = default;

  // Queues a message behind earlier ones and returns; never blocks. When the rank has not read for so long
  // that the bounded queue is full, the stream is cut, which OnClosed reports. Ignored on a closed link.
  virtual void Send(CoordinatorMessage message) = 0;
  // Ends the stream: with `flush` after what is queued was sent, else at once. OnClosed follows. Idempotent.
  virtual void Close(bool flush) = 0;
};

// Receives what happens on links. Calls for one link come one at a time, from the transport's threads; they
// must not block.
class RankLinkHandler {
 public:
  virtual ~RankLinkHandler() = default;

  virtual void OnConnected(std::shared_ptr<RankLink> link) = 0;
  virtual void OnMessage(const std::shared_ptr<RankLink>& link, RankMessage message) = 0;
  // The last call for a link, once.
  virtual void OnClosed(const std::shared_ptr<RankLink>& link, absl::Status reason) = 0;
};

}  // namespace lancet
