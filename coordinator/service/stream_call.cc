#include "coordinator/service/stream_call.h"

#include <chrono>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/service/api_convert.h"

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
  if (!method->pool->TryPost([call, bytes = request] { call->Admission(bytes); })) {
    call->stream_->End({absl::ResourceExhaustedError("too many requests at once"), absl::Seconds(1)});
  }
  return call.get();
}

void StreamCall::OnReady() {
  std::optional<std::variant<ClientEvent, CallStatus>> next = stream_->Take();
  if (!next.has_value()) return;
  if (const auto* event = std::get_if<ClientEvent>(&*next)) {
    // Only one write is outstanding, so nobody else touches the buffer.
    buffer_ = ToByteBuffer(method_->serialize(*event));
    StartWrite(&buffer_);
  } else {
    Finish(ToGrpcStatus(std::get<CallStatus>(*next)));
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
  if (const absl::Status status = Admit(bytes); !status.ok()) {
    LogInfo("request", {{"request_id", RequestIdText(id_)},
                        {"code", absl::StatusCodeToString(status.code())},
                        {"reason", status.message()}});
    stream_->End({status, std::nullopt});
  }
}

absl::Status StreamCall::Admit(const grpc::ByteBuffer& bytes) {
  if (stream_->cancelled()) return absl::CancelledError("the client went away");
  LANCET_ASSIGN_OR_RETURN(NewRequest request, method_->intake(ToString(bytes), id_));
  request.arrival = arrival_;
  request.deadline = deadline_;
  request.stream = stream_;
  method_->dispatcher->Submit(std::move(request));
  return absl::OkStatus();
}

}  // namespace lancet
