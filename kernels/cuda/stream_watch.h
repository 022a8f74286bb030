// Who else has a say in whether a stream gets on.
#pragma once

#include "absl/status/status.h"

namespace lancet {

// Work on the device may wait for other ranks; whoever waits for that work asks here from time to time.
class StreamWatch {
 public:
  virtual ~StreamWatch() = default;
  // Not OK if what is enqueued will never come to a good end; it ends soon then, with results of no use.
  virtual absl::Status Check() = 0;
  // What Check or Abandon found, if something: without looking again.
  virtual absl::Status Failure() = 0;
  // The one who waits has lost patience: ends what is enqueued, as above.
  virtual void Abandon(const absl::Status& reason) = 0;
};

}  // namespace lancet
