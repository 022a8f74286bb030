// One call of any method that streams events: the reactor between gRPC and a request's EventStream. It
// copies, hands over and returns; parsing and planning run on a pool, everything after that on the
// dispatcher's loop.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "coordinator/access/access_control.h"
#include "coordinator/dispatch/dispatcher.h"
#include "coordinator/dispatch/event_stream.h"
#include "coordinator/dispatch/service_observer.h"
#include "coordinator/dispatch/task_runner.h"

namespace lancet {

// What a method does with its bytes; both functions are thread-safe. Pointers outlive the calls.
struct StreamMethod {
  RequestTask task = RequestTask::kGenerate;
  Dispatcher* dispatcher = nullptr;
  ServiceObserver* observer = nullptr;
  AccessControl* access = nullptr;
  int max_queue = 0;                 // requests of everybody that may wait
  std::function<uint64_t()> random;  // for traces and spans
  TaskRunner* pool = nullptr;        // runs `intake`
  const Clock* clock = nullptr;
  // From a request message to a request without arrival, deadline and stream.
  std::function<absl::StatusOr<NewRequest>(const std::string& wire, uint64_t id)> intake;
  std::function<std::string(const ClientEvent& event)> serialize;
};

// Lives until OnDone and until the last task that refers to it has run.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                         public StreamWriter,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  // Begins the call; gRPC owns what is returned. `request` is copied, by reference count. `method` outlives
  // it.
  static StreamCall* Begin(const StreamMethod* method, grpc::CallbackServerContext* context, uint64_t id,
                           const grpc::ByteBuffer& request);

  StreamCall(const StreamMethod* method, grpc::CallbackServerContext* context, uint64_t id);

  void OnReady() override;
  void Cut() override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Who calls, for whom, and within which limits; on the thread that begins the call.
  CallStatus Enter(const grpc::CallbackServerContext& context);
  // On the pool.
  void Admission(const grpc::ByteBuffer& bytes);
  CallStatus Admit(const grpc::ByteBuffer& bytes);
  // Ends a call that the dispatcher never had.
  void Reject(CallStatus status);

  const StreamMethod* const method_;
  const uint64_t id_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  RequestOrigin origin_;  // constant once the call has begun
  AccessLease lease_;     // touched by one thread at a time: Begin, the event loop, the last write
  const std::shared_ptr<EventStream> stream_;
  grpc::ByteBuffer buffer_;  // the outstanding write
  std::shared_ptr<StreamCall> self_;
  std::mutex mu_;
  grpc::CallbackServerContext* context_;  // guarded by mu_; null after OnDone
};

}  // namespace lancet
