#include "coordinator/service/stream_call.h"

#include <chrono>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "common/model_config.h"
#include "coordinator/service/api_convert.h"
#include "rpc/metadata.h"

namespace lancet {
namespace {

// The codes of absl and gRPC are the same numbers.
grpc::Status ToGrpcStatus(const CallStatus& call) {
  if (call.status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(call.status.code());
  std::string message(call.status.message());
  if (!call.retry_after.has_value()) return grpc::Status(code, message);
  return grpc::Status(code, message, SerializeRetryDetails(code, message, *call.retry_after));
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

grpc::ByteBuffer ToByteBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// What a request is charged: width * height * steps of a picture; a picture to look at counts as one step.
int64_t PixelSteps(const RequestPlan& plan) {
  if (plan.draws()) {
    return plan.target.num_latents() * kPixelsPerLatent * kPixelsPerLatent * plan.sampler.num_steps;
  }
  return plan.vision_image.has_value() ? int64_t{plan.vision_image->width} * plan.vision_image->height : 0;
}

// In the time of our own clock, which the wall clock may leave.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context, absl::Time now) {
  const std::chrono::system_clock::time_point deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return now + absl::FromChrono(deadline - std::chrono::system_clock::now());
}

}  // namespace

StreamCall::StreamCall(const StreamMethod* method, grpc::CallbackServerContext* context, uint64_t id)
    : method_(method),
      id_(id),
      arrival_(method->clock->Now()),
      deadline_(DeadlineOf(*context, arrival_)),
      stream_(std::make_shared<EventStream>(method->clock)),
      context_(context) {}

StreamCall* StreamCall::Begin(const StreamMethod* method, grpc::CallbackServerContext* context, uint64_t id,
                              const grpc::ByteBuffer& request) {
  auto call = std::make_shared<StreamCall>(method, context, id);
  call->self_ = call;
  call->stream_->SetWriter(call);
  method->observer->OnReceived(method->task, static_cast<int64_t>(request.Length()));
  CallStatus entered = call->Enter(*context);
  // A stream that was cancelled before its message came is handed over like one with an empty message.
  if (entered.status.ok() && context->IsCancelled()) {
    entered.status = absl::CancelledError("the client went away");
  }
  if (!entered.status.ok()) {
    call->Reject(std::move(entered));
  } else if (!method->pool->TryPost([call, bytes = request] { call->Admission(bytes); })) {
    call->Reject({absl::ResourceExhaustedError("too many requests at once"), absl::Seconds(1),
                  RejectReason::kOverloaded});
  }
  return call.get();
}

CallStatus StreamCall::Enter(const grpc::CallbackServerContext& context) {
  origin_.task = method_->task;
  origin_.trace = ContinueTrace(MetadataOf(context, "traceparent"), method_->random);
  absl::StatusOr<AccessLease> lease = method_->access->Enter(MetadataOf(context, "authorization"));
  if (!lease.ok()) {
    if (absl::IsUnauthenticated(lease.status())) {
      return {lease.status(), std::nullopt, RejectReason::kUnauthenticated};
    }
    return {lease.status(), absl::Seconds(1), RejectReason::kTokenLimit};
  }
  lease_ = *std::move(lease);
  origin_.caller = lease_.name();
  origin_.max_waiting = lease_.MaxWaiting(method_->max_queue);
  return {};
}

void StreamCall::OnReady() {
  std::optional<std::variant<ClientEvent, CallStatus>> next = stream_->Take();
  if (!next.has_value()) return;
  if (const auto* event = std::get_if<ClientEvent>(&*next)) {
    // Only one write is outstanding, so nobody else touches the buffer.
    buffer_ = ToByteBuffer(method_->serialize(*event));
    method_->observer->OnSent(method_->task, static_cast<int64_t>(buffer_.Length()));
    StartWrite(&buffer_);
  } else {
    const CallStatus& status = std::get<CallStatus>(*next);
    if (status.reason != RejectReason::kNone) lease_.Refund();
    Finish(ToGrpcStatus(status));
  }
}

void StreamCall::Cut() {
  const std::lock_guard<std::mutex> lock(mu_);
  if (context_ != nullptr) context_->TryCancel();
}

void StreamCall::OnWriteDone(bool) {
  buffer_.Clear();
  // A failed write is followed by OnCancel, which leads to the end.
  stream_->Sent();
}

void StreamCall::OnCancel() {
  stream_->SetCancelled();
  method_->dispatcher->Cancel(id_);
}

void StreamCall::OnDone() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    context_ = nullptr;
  }
  method_->dispatcher->OnCallDone(id_);
  self_.reset();
}

void StreamCall::Admission(const grpc::ByteBuffer& bytes) {
  if (CallStatus status = Admit(bytes); !status.status.ok()) Reject(std::move(status));
}

void StreamCall::Reject(CallStatus status) {
  RequestOutcome outcome;
  outcome.id = id_;
  outcome.origin = origin_;
  outcome.status = status.status;
  outcome.reason = status.reason;
  outcome.timings.total = method_->clock->Now() - arrival_;
  LogOutcome(outcome);
  method_->observer->OnOutcome(outcome);
  stream_->End(std::move(status));
}

CallStatus StreamCall::Admit(const grpc::ByteBuffer& bytes) {
  if (stream_->cancelled()) return {absl::CancelledError("the client went away"), std::nullopt};
  absl::StatusOr<NewRequest> request = method_->intake(ToString(bytes), id_);
  if (!request.ok()) return {request.status(), std::nullopt, RejectReason::kInvalid};
  request->charge = [call = shared_from_this(), pixel_steps = PixelSteps(request->plan)](absl::Time now) {
    AccessLease::Charged charged = call->lease_.Charge(pixel_steps, now);
    if (charged.status.ok()) return CallStatus{};
    std::optional<absl::Duration> retry_after;
    if (absl::IsResourceExhausted(charged.status)) retry_after = charged.retry_after;
    return CallStatus{std::move(charged.status), retry_after, RejectReason::kTokenLimit};
  };
  request->plan.traceparent = origin_.trace.ToTraceparent();
  request->origin = origin_;
  request->arrival = arrival_;
  request->deadline = deadline_;
  request->stream = stream_;
  method_->dispatcher->Submit(*std::move(request));
  return {};
}

}  // namespace lancet
