// What the service tells those who watch it: metrics, logs, status. Nothing here changes what is done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/trace_context.h"
#include "coordinator/dispatch/events.h"

namespace lancet {

enum class RequestTask : uint8_t { kGenerate, kEdit, kDescribe };

// As clients see it: 16 hex digits.
std::string RequestIdText(uint64_t id);
// "generate", "edit", "describe".
absl::string_view TaskName(RequestTask task);
// Such as "queue_full"; for kNone "".
absl::string_view RejectReasonName(RejectReason reason);

// Where a request comes from. Nothing in it is a client's text.
struct RequestOrigin {
  RequestTask task = RequestTask::kGenerate;
  TraceContext trace;
  std::string caller;   // the name of its token, as the operator chose it; empty: none is asked for
  int max_waiting = 0;  // requests of this caller in the queue; 0: as many as the queue takes
};

// One request that is over, however it ended; or a call that joined one by its idempotency key, which has
// task, trace, status and total time of its own and leaves the work's numbers to the request.
struct RequestOutcome {
  uint64_t id = 0;
  std::optional<uint64_t> joined{};  // the request that the call joined
  RequestOrigin origin;
  absl::Status status;
  RejectReason reason = RejectReason::kNone;
  std::string group;  // that worked on it last; empty: none did
  uint64_t seed = 0;
  int32_t width = 0;  // pixels; 0 for an answer
  int32_t height = 0;
  int32_t steps_done = 0;
  int32_t steps = 0;
  int32_t answer_tokens = 0;
  int32_t resumes = 0;   // times that it went on from a snapshot
  StageTimings timings;  // with `total`, and with `queue` even if it never ran
};

// Called from the event loop and from threads of the transport; must not block. Does nothing by itself.
class ServiceObserver {
 public:
  virtual ~ServiceObserver() = default;

  virtual void OnOutcome(const RequestOutcome& /*outcome*/) {}
  // One packed pass of a group was sent to it.
  virtual void OnIterationSent(const std::string& /*group*/, int64_t /*rows*/, int64_t /*requests*/) {}
  virtual void OnIterationDone(const std::string& /*group*/, absl::Duration /*took*/) {}
  // Since arrival.
  virtual void OnFirstPreview(uint64_t /*id*/, RequestTask /*task*/, absl::Duration /*after*/) {}
  virtual void OnFirstToken(uint64_t /*id*/, absl::Duration /*after*/) {}
  virtual void OnGroupLost(const std::string& /*group*/, int64_t /*running*/) {}
  // A request goes on from a snapshot.
  virtual void OnResumed(uint64_t /*id*/) {}
  // Messages of calls, in bytes.
  virtual void OnReceived(RequestTask /*task*/, int64_t /*bytes*/) {}
  virtual void OnSent(RequestTask /*task*/, int64_t /*bytes*/) {}
};

// The one line that a request gets: id, task, code, group, seed, steps, seconds.
void LogOutcome(const RequestOutcome& outcome);

}  // namespace lancet
