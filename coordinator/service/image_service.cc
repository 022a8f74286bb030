#include "coordinator/service/image_service.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/service_type.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "coordinator/dispatch/event_stream.h"
#include "lancet/v1/lancet.grpc.pb.h"

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

// One GenerateImage. Lives until OnDone and until the last task that refers to it has run.
class GenerateCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                           public StreamWriter,
                           public std::enable_shared_from_this<GenerateCall> {
 public:
  GenerateCall(const ImageServiceOptions* options, grpc::CallbackServerContext* context, uint64_t id)
      : options_(options),
        id_(id),
        arrival_(options->clock->Now()),
        deadline_(DeadlineOf(*context, arrival_)),
        stream_(std::make_shared<EventStream>(options->clock)),
        context_(context) {}

  // `request` is copied (by reference count) before this returns.
  void Begin(const grpc::ByteBuffer* request) {
    self_ = shared_from_this();
    stream_->SetWriter(weak_from_this());
    const bool posted = options_->admission_pool->TryPost(
        [call = shared_from_this(), bytes = *request] { call->Admission(bytes); });
    if (!posted) {
      stream_->End({absl::ResourceExhaustedError("too many requests at once"), absl::Seconds(1)});
    }
  }

  void OnReady() override {
    std::optional<std::variant<ClientEvent, CallStatus>> next = stream_->Take();
    if (!next.has_value()) return;
    if (const auto* event = std::get_if<ClientEvent>(&*next)) {
      // Only one write is outstanding, so nobody else touches the buffer.
      buffer_ = ToByteBuffer(SerializeEvent(*event));
      StartWrite(&buffer_);
    } else {
      Finish(ToGrpcStatus(std::get<CallStatus>(*next)));
    }
  }

  void Cut() override {
    const std::lock_guard<std::mutex> lock(mu_);
    if (context_ != nullptr) context_->TryCancel();
  }

  void OnWriteDone(bool) override {
    buffer_.Clear();
    // A failed write is followed by OnCancel, which leads to the end.
    stream_->Sent();
  }

  void OnCancel() override {
    stream_->SetCancelled();
    options_->dispatcher->Cancel(id_);
  }

  void OnDone() override {
    {
      const std::lock_guard<std::mutex> lock(mu_);
      context_ = nullptr;
    }
    options_->dispatcher->OnCallDone(id_);
    self_.reset();
  }

 private:
  // On the pool.
  void Admission(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = Admit(bytes); !status.ok()) {
      LogInfo("request", {{"request_id", RequestIdText(id_)},
                          {"code", absl::StatusCodeToString(status.code())},
                          {"reason", status.message()}});
      stream_->End({status, std::nullopt});
    }
  }

  absl::Status Admit(const grpc::ByteBuffer& bytes) {
    if (stream_->cancelled()) return absl::CancelledError("the client went away");
    LANCET_ASSIGN_OR_RETURN(const GenerateRequest raw, ParseGenerateRequest(ToString(bytes)));
    LANCET_ASSIGN_OR_RETURN(AdmittedRequest admitted, lancet::Admit(raw, options_->info.limits,
                                                                    options_->info.card, options_->random()));
    NewRequest request;
    LANCET_ASSIGN_OR_RETURN(request.plan, options_->planner(id_, admitted.params));
    request.preview = admitted.preview;
    request.output_format = admitted.output_format;
    request.priority = admitted.priority;
    request.warnings = std::move(admitted.warnings);
    request.arrival = arrival_;
    request.deadline = deadline_;
    request.stream = stream_;
    options_->dispatcher->Submit(std::move(request));
    return absl::OkStatus();
  }

  const ImageServiceOptions* const options_;
  const uint64_t id_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  const std::shared_ptr<EventStream> stream_;
  grpc::ByteBuffer buffer_;  // the outstanding write
  std::shared_ptr<GenerateCall> self_;
  std::mutex mu_;
  grpc::CallbackServerContext* context_;  // guarded by mu_; null after OnDone
};

using ServiceBase = v1::ImageService::WithRawCallbackMethod_GenerateImage<
    v1::ImageService::WithCallbackMethod_GetModelInfo<v1::ImageService::Service>>;

class ImageService final : public ServiceBase {
 public:
  explicit ImageService(ImageServiceOptions options) : options_(std::move(options)) {}

  // Raw bytes in and out, see ParseGenerateRequest; a result is serialised once.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateImage(grpc::CallbackServerContext* context,
                                                            const grpc::ByteBuffer* request) override {
    auto call = std::make_shared<GenerateCall>(&options_, context, options_.random());
    call->Begin(request);
    return call.get();
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context, const v1::GetModelInfoRequest*,
                                         v1::GetModelInfoResponse* response) override {
    *response = ToProto(options_.info, options_.dispatcher->Groups(), options_.readiness->draining());
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const ImageServiceOptions options_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeImageService(ImageServiceOptions options) {
  return std::make_unique<ImageService>(std::move(options));
}

}  // namespace lancet
