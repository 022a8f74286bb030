#include "client/generation_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/duration.pb.h"
#include "lancet/v1/lancet.grpc.pb.h"

namespace lancet {
namespace {

// A PNG of the largest picture that a server could be set to make.
constexpr int kMaxMessageBytes = 256 << 20;

// Retries are safe although generating costs work: gRPC repeats a call only while nothing of the answer has
// come, and UNAVAILABLE without an answer means that no request was admitted or that the server that had it
// is gone.
constexpr char kServiceConfig[] = R"({
  "methodConfig": [{
    "name": [{"service": "lancet.v1.ImageService"}],
    "retryPolicy": {
      "maxAttempts": 5,
      "initialBackoff": "0.2s",
      "maxBackoff": "2s",
      "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
})";

v1::ImageFormat ToProto(PictureFormat format) {
  switch (format) {
    case PictureFormat::kPng:
      return v1::IMAGE_FORMAT_PNG;
    case PictureFormat::kJpeg:
      return v1::IMAGE_FORMAT_JPEG;
    case PictureFormat::kWebp:
      return v1::IMAGE_FORMAT_WEBP;
  }
  return v1::IMAGE_FORMAT_UNSPECIFIED;
}

v1::Priority ToProto(RequestPriority priority) {
  switch (priority) {
    case RequestPriority::kLow:
      return v1::PRIORITY_LOW;
    case RequestPriority::kNormal:
      return v1::PRIORITY_NORMAL;
    case RequestPriority::kHigh:
      return v1::PRIORITY_HIGH;
  }
  return v1::PRIORITY_UNSPECIFIED;
}

v1::GenerateImageRequest ToProto(const GenerationRequest& request) {
  v1::GenerateImageRequest out;
  out.set_prompt(request.prompt);
  if (request.seed.has_value()) out.set_seed(*request.seed);
  if (request.num_steps.has_value()) out.set_num_inference_steps(*request.num_steps);
  if (request.guidance_scale.has_value()) out.set_guidance_scale(*request.guidance_scale);
  if (request.timestep_shift.has_value()) out.set_timestep_shift(*request.timestep_shift);
  if (request.guidance_interval.has_value()) {
    out.mutable_guidance_interval()->set_start(request.guidance_interval->first);
    out.mutable_guidance_interval()->set_end(request.guidance_interval->second);
  }
  if (request.size.has_value()) {
    out.set_width(request.size->first);
    out.set_height(request.size->second);
  }
  if (request.preview_every_steps.has_value()) {
    v1::PreviewOptions* preview = out.mutable_preview();
    preview->set_every_n_steps(*request.preview_every_steps);
    preview->set_method(request.preview_kind == PreviewKind::kVae ? v1::PREVIEW_METHOD_VAE
                                                                  : v1::PREVIEW_METHOD_LATENT_RGB);
    preview->set_format(ToProto(request.preview_format));
    if (request.preview_max_side.has_value()) preview->set_max_side(*request.preview_max_side);
  }
  out.set_output_format(ToProto(request.output_format));
  out.set_priority(ToProto(request.priority));
  return out;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

PictureFile FromProto(v1::Image& image) {
  PictureFile out;
  out.format = image.format() == v1::IMAGE_FORMAT_JPEG   ? PictureFormat::kJpeg
               : image.format() == v1::IMAGE_FORMAT_WEBP ? PictureFormat::kWebp
                                                         : PictureFormat::kPng;
  out.width = image.width();
  out.height = image.height();
  out.data = std::move(*image.mutable_data());
  return out;
}

GenerationResult FromProto(v1::ImageResult& result) {
  GenerationResult out;
  out.image = FromProto(*result.mutable_image());
  out.seed = result.seed();
  out.timings = {.queue = FromProto(result.timings().queue()),
                 .prefill = FromProto(result.timings().prefill()),
                 .denoise = FromProto(result.timings().denoise()),
                 .decode = FromProto(result.timings().decode()),
                 .encode = FromProto(result.timings().encode()),
                 .total = FromProto(result.timings().total())};
  out.model_fingerprint = result.model_fingerprint();
  return out;
}

// Everything but the result goes to the observer.
void Notify(GenerationObserver& observer, v1::GenerateImageResponse& event) {
  switch (event.event_case()) {
    case v1::GenerateImageResponse::kQueued: {
      QueuedInfo queued{.position = event.queued().position(), .estimated_wait = std::nullopt};
      if (event.queued().has_estimated_wait())
        queued.estimated_wait = FromProto(event.queued().estimated_wait());
      return observer.OnQueued(queued);
    }
    case v1::GenerateImageResponse::kStarted: {
      const v1::StartedEvent& started = event.started();
      return observer.OnStarted({.request_id = started.request_id(),
                                 .seed = started.seed(),
                                 .width = started.width(),
                                 .height = started.height(),
                                 .num_steps = started.num_inference_steps(),
                                 .warnings = {started.warnings().begin(), started.warnings().end()}});
    }
    case v1::GenerateImageResponse::kProgress: {
      const v1::ProgressEvent& progress = event.progress();
      return observer.OnProgress({.step = progress.step(),
                                  .total_steps = progress.total_steps(),
                                  .elapsed = FromProto(progress.elapsed()),
                                  .estimated_remaining = FromProto(progress.estimated_remaining())});
    }
    case v1::GenerateImageResponse::kPreview:
      return observer.OnPreview(
          {.step = event.preview().step(), .image = FromProto(*event.mutable_preview()->mutable_image())});
    case v1::GenerateImageResponse::kResult:
    case v1::GenerateImageResponse::EVENT_NOT_SET:  // an event of a newer server
      return;
  }
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

void SetDeadline(grpc::ClientContext& context, absl::Duration timeout) {
  if (timeout != absl::InfiniteDuration()) context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
}

std::string StateName(v1::GroupState state) {
  switch (state) {
    case v1::GROUP_STATE_FORMING:
      return "forming";
    case v1::GROUP_STATE_SERVING:
      return "serving";
    case v1::GROUP_STATE_DRAINING:
      return "draining";
    default:
      return "unknown";
  }
}

}  // namespace

absl::string_view FileExtension(PictureFormat format) {
  switch (format) {
    case PictureFormat::kPng:
      return "png";
    case PictureFormat::kJpeg:
      return "jpg";
    case PictureFormat::kWebp:
      return "webp";
  }
  return "bin";
}

void Cancellation::Cancel() {
  const std::lock_guard<std::mutex> lock(mu_);
  cancelled_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

bool Cancellation::cancelled() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return cancelled_;
}

void Cancellation::Set(grpc::ClientContext* context) {
  const std::lock_guard<std::mutex> lock(mu_);
  context_ = context;
  if (context_ != nullptr && cancelled_) context_->TryCancel();
}

struct GenerationClient::Impl {
  std::unique_ptr<v1::ImageService::Stub> stub;
};

GenerationClient::GenerationClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GenerationClient::~GenerationClient() = default;

absl::StatusOr<std::unique_ptr<GenerationClient>> GenerationClient::Create(const ClientOptions& options) {
  if (options.server.empty()) return absl::InvalidArgumentError("server is empty; expected host:port");
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetServiceConfigJSON(kServiceConfig);
  // Within the time that the retries take, a server that has just come up is found.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  auto impl = std::make_unique<Impl>();
  impl->stub = v1::ImageService::NewStub(
      grpc::CreateCustomChannel(options.server, grpc::InsecureChannelCredentials(), arguments));
  return absl::WrapUnique(new GenerationClient(std::move(impl)));
}

absl::StatusOr<GenerationResult> GenerationClient::Generate(const GenerationRequest& request,
                                                            GenerationObserver* observer,
                                                            Cancellation* cancellation) {
  grpc::ClientContext context;
  SetDeadline(context, request.timeout);
  const auto reader = impl_->stub->GenerateImage(&context, ToProto(request));
  // From here on the context has a call that can be cancelled.
  if (cancellation != nullptr) cancellation->Set(&context);
  std::optional<GenerationResult> result;
  v1::GenerateImageResponse event;
  while (reader->Read(&event)) {
    if (event.has_result()) {
      result = FromProto(*event.mutable_result());
    } else {
      Notify(*observer, event);
    }
  }
  const grpc::Status status = reader->Finish();
  if (cancellation != nullptr) cancellation->Set(nullptr);
  if (!status.ok()) return FromGrpc(status);
  if (!result.has_value()) return absl::DataLossError("the server ended the stream without a result");
  return *std::move(result);
}

absl::StatusOr<ModelDescription> GenerationClient::GetModelInfo(absl::Duration timeout) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  v1::GetModelInfoResponse response;
  const grpc::Status status = impl_->stub->GetModelInfo(&context, v1::GetModelInfoRequest(), &response);
  if (!status.ok()) return FromGrpc(status);
  ModelDescription info;
  info.name = response.name();
  info.fingerprint = response.fingerprint();
  info.quantization = response.quantization();
  info.default_size = {response.default_width(), response.default_height()};
  for (const v1::ImageSize& size : response.recommended_sizes()) {
    info.recommended_sizes.emplace_back(size.width(), size.height());
  }
  const v1::Limits& limits = response.limits();
  info.max_prompt_bytes = limits.max_prompt_bytes();
  info.max_prompt_tokens = limits.max_prompt_tokens();
  info.max_steps = limits.max_steps();
  info.max_side = limits.max_side();
  info.max_pixels = limits.max_pixels();
  info.max_queue = limits.max_queue();
  for (const v1::GroupInfo& group : response.groups()) {
    info.groups.push_back({.name = group.name(),
                           .world_size = group.world_size(),
                           .state = StateName(group.state()),
                           .active_requests = group.active_requests(),
                           .device = group.device()});
  }
  info.server_version = response.server_version();
  return info;
}

}  // namespace lancet
