#include "client/generation_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/channel.h"
#include "client/rejoining_observer.h"
#include "client/rpc_values.h"
#include "client/service_config.h"
#include "common/status_macros.h"
#include "common/trace_context.h"
#include "google/protobuf/duration.pb.h"
#include "lancet/v1/lancet.grpc.pb.h"

namespace lancet {
namespace {

// A PNG of the largest picture that a server could be set to make.
constexpr int kMaxMessageBytes = 256 << 20;

// Between two attempts to join a request again; doubles.
constexpr absl::Duration kFirstRejoin = absl::Milliseconds(100);
constexpr absl::Duration kLastRejoin = absl::Seconds(2);

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

v1::Resolution ToProto(InputResolution resolution) {
  switch (resolution) {
    case InputResolution::kImage256:
      return v1::RESOLUTION_IMAGE_256RES;
    case InputResolution::kImage512:
      return v1::RESOLUTION_IMAGE_512RES;
    case InputResolution::kImage768:
      return v1::RESOLUTION_IMAGE_768RES;
    case InputResolution::kVideo360p:
      return v1::RESOLUTION_VIDEO_360P;
    case InputResolution::kVideo480p:
      return v1::RESOLUTION_VIDEO_480P;
  }
  return v1::RESOLUTION_UNSPECIFIED;
}

// What requests that draw have in common.
template <typename Message>
void SetDrawing(const GenerationRequest& request, Message& out) {
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
  out.set_idempotency_key(request.idempotency_key);
  out.set_sampler(request.sampler == RequestSampler::kDpmpp2m ? v1::SAMPLER_DPMPP_2M : v1::SAMPLER_EULER);
}

v1::GenerateImageRequest ToGenerate(const GenerationRequest& request) {
  v1::GenerateImageRequest out;
  SetDrawing(request, out);
  out.set_prompt(request.prompt);
  return out;
}

v1::EditImageRequest ToEdit(const GenerationRequest& request) {
  v1::EditImageRequest out;
  SetDrawing(request, out);
  out.add_images(request.image);
  out.set_instruction(request.prompt);
  if (request.resolution.has_value()) out.set_resolution(ToProto(*request.resolution));
  out.set_sample_condition(request.sample_condition);
  return out;
}

v1::DescribeImageRequest ToDescribe(const DescriptionRequest& request) {
  v1::DescribeImageRequest out;
  out.add_images(request.image);
  if (request.question.has_value()) out.set_question(*request.question);
  if (request.system_prompt.has_value()) out.set_system_prompt(*request.system_prompt);
  if (request.max_new_tokens.has_value()) out.set_max_new_tokens(*request.max_new_tokens);
  if (request.temperature.has_value()) out.set_temperature(*request.temperature);
  if (request.seed.has_value()) out.set_seed(*request.seed);
  if (request.resolution.has_value()) out.set_resolution(ToProto(*request.resolution));
  out.set_priority(ToProto(request.priority));
  out.set_idempotency_key(request.idempotency_key);
  return out;
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

GenerationTimings FromProto(const v1::Timings& timings) {
  return {.queue = ToDuration(timings.queue()),
          .prefill = ToDuration(timings.prefill()),
          .denoise = ToDuration(timings.denoise()),
          .decode = ToDuration(timings.decode()),
          .encode = ToDuration(timings.encode()),
          .total = ToDuration(timings.total()),
          .input = ToDuration(timings.input()),
          .answer = ToDuration(timings.answer())};
}

GenerationResult FromProto(v1::ImageResult& result) {
  GenerationResult out;
  out.image = FromProto(*result.mutable_image());
  out.seed = result.seed();
  out.timings = FromProto(result.timings());
  out.model_fingerprint = result.model_fingerprint();
  return out;
}

DescriptionResult FromProto(v1::TextResult& result) {
  DescriptionResult out;
  out.text = std::move(*result.mutable_text());
  out.cut = result.finish_reason() == v1::FINISH_REASON_LENGTH;
  out.prompt_tokens = result.usage().prompt_tokens();
  out.answer_tokens = result.usage().answer_tokens();
  out.seed = result.seed();
  out.timings = FromProto(result.timings());
  out.model_fingerprint = result.model_fingerprint();
  return out;
}

QueuedInfo FromProto(const v1::QueuedEvent& event) {
  QueuedInfo queued{.position = event.position(), .estimated_wait = std::nullopt};
  if (event.has_estimated_wait()) queued.estimated_wait = ToDuration(event.estimated_wait());
  return queued;
}

StartedInfo FromProto(const v1::StartedEvent& started) {
  return {.request_id = started.request_id(),
          .seed = started.seed(),
          .width = started.width(),
          .height = started.height(),
          .num_steps = started.num_inference_steps(),
          .warnings = {started.warnings().begin(), started.warnings().end()}};
}

// Everything but the result goes to the observer; events of a newer server go nowhere. Response is the one of
// a call that draws.
template <typename Response>
void Notify(GenerationObserver& observer, Response& event) {
  if (event.has_queued()) {
    observer.OnQueued(FromProto(event.queued()));
  } else if (event.has_started()) {
    observer.OnStarted(FromProto(event.started()));
  } else if (event.has_progress()) {
    const v1::ProgressEvent& progress = event.progress();
    observer.OnProgress({.step = progress.step(),
                         .total_steps = progress.total_steps(),
                         .elapsed = ToDuration(progress.elapsed()),
                         .estimated_remaining = ToDuration(progress.estimated_remaining())});
  } else if (event.has_preview()) {
    observer.OnPreview(
        {.step = event.preview().step(), .image = FromProto(*event.mutable_preview()->mutable_image())});
  }
}

void Notify(GenerationObserver& observer, v1::DescribeImageResponse& event) {
  if (event.has_queued()) {
    observer.OnQueued(FromProto(event.queued()));
  } else if (event.has_started()) {
    observer.OnStarted(FromProto(event.started()));
  } else if (event.has_delta()) {
    observer.OnDelta(event.delta().text());
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
  changed_.notify_all();
  if (context_ != nullptr) context_->TryCancel();
}

bool Cancellation::cancelled() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return cancelled_;
}

bool Cancellation::AwaitCancel(absl::Duration timeout) const {
  std::unique_lock<std::mutex> lock(mu_);
  return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [this] { return cancelled_; });
}

void Cancellation::Set(grpc::ClientContext* context) {
  const std::lock_guard<std::mutex> lock(mu_);
  context_ = context;
  if (context_ != nullptr && cancelled_) context_->TryCancel();
}

struct GenerationClient::Impl {
  ClientOptions options;
  std::unique_ptr<v1::ImageService::Stub> stub;
  std::unique_ptr<v1::TextService::Stub> text_stub;

  void SetMetadata(const std::string& traceparent, grpc::ClientContext& context) const {
    SetAuthorization(options, context);
    // Anything else is no legal metadata, perhaps.
    if (ParseTraceparent(traceparent).ok()) context.AddMetadata("traceparent", traceparent);
  }
};

template <typename Result, typename Response, typename Start>
absl::StatusOr<Result> GenerationClient::CallAgain(absl::Duration timeout, absl::string_view idempotency_key,
                                                   GenerationObserver* observer, Cancellation* cancellation,
                                                   const Start& start) {
  const absl::Time deadline = absl::Now() + timeout;
  RejoiningObserver rejoining(observer);
  absl::Duration wait = kFirstRejoin;
  absl::Time give_up = absl::Now() + impl_->options.rejoin_for;
  while (true) {
    const absl::Time begin = absl::Now();
    rejoining.OnStream();
    absl::StatusOr<Result> result = Call<Result, Response>(deadline - begin, &rejoining, cancellation, start);
    const absl::Time now = absl::Now();
    // A stream that lasted shows that the server was there.
    if (now - begin > kLastRejoin) {
      wait = kFirstRejoin;
      give_up = now + impl_->options.rejoin_for;
    }
    const bool over =
        now + wait >= std::min(deadline, give_up) || (cancellation != nullptr && cancellation->cancelled());
    if (idempotency_key.empty() || !absl::IsUnavailable(result.status()) || over) return result;
    absl::SleepFor(wait);
    wait = std::min(2 * wait, kLastRejoin);
  }
}

template <typename Result, typename Response, typename Start>
absl::StatusOr<Result> GenerationClient::Call(absl::Duration timeout, GenerationObserver* observer,
                                              Cancellation* cancellation, const Start& start) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  const std::unique_ptr<grpc::ClientReader<Response>> reader = start(&context);
  // From here on the context has a call that can be cancelled.
  if (cancellation != nullptr) cancellation->Set(&context);
  std::optional<Result> result;
  Response event;
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

GenerationClient::GenerationClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GenerationClient::~GenerationClient() = default;

absl::StatusOr<std::unique_ptr<GenerationClient>> GenerationClient::Create(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetServiceConfigJSON(kServiceConfig);
  // Within the time that the retries take, a server that has just come up is found.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  LANCET_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(options, arguments));
  impl->stub = v1::ImageService::NewStub(channel);
  impl->text_stub = v1::TextService::NewStub(channel);
  return absl::WrapUnique(new GenerationClient(std::move(impl)));
}

absl::StatusOr<GenerationResult> GenerationClient::Generate(const GenerationRequest& request,
                                                            GenerationObserver* observer,
                                                            Cancellation* cancellation) {
  const v1::GenerateImageRequest message = ToGenerate(request);
  return CallAgain<GenerationResult, v1::GenerateImageResponse>(
      request.timeout, request.idempotency_key, observer, cancellation, [&](grpc::ClientContext* context) {
        impl_->SetMetadata(request.traceparent, *context);
        return impl_->stub->GenerateImage(context, message);
      });
}

absl::StatusOr<GenerationResult> GenerationClient::Edit(const GenerationRequest& request,
                                                        GenerationObserver* observer,
                                                        Cancellation* cancellation) {
  const v1::EditImageRequest message = ToEdit(request);
  return CallAgain<GenerationResult, v1::EditImageResponse>(
      request.timeout, request.idempotency_key, observer, cancellation, [&](grpc::ClientContext* context) {
        impl_->SetMetadata(request.traceparent, *context);
        return impl_->stub->EditImage(context, message);
      });
}

absl::StatusOr<DescriptionResult> GenerationClient::Describe(const DescriptionRequest& request,
                                                             GenerationObserver* observer,
                                                             Cancellation* cancellation) {
  const v1::DescribeImageRequest message = ToDescribe(request);
  return CallAgain<DescriptionResult, v1::DescribeImageResponse>(
      request.timeout, request.idempotency_key, observer, cancellation, [&](grpc::ClientContext* context) {
        impl_->SetMetadata(request.traceparent, *context);
        return impl_->text_stub->DescribeImage(context, message);
      });
}

absl::StatusOr<ModelDescription> GenerationClient::GetModelInfo(absl::Duration timeout) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  SetAuthorization(impl_->options, context);
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
  info.max_new_tokens = limits.max_new_tokens();
  info.max_image_bytes = limits.max_image_bytes();
  info.max_image_side = limits.max_image_side();
  info.max_image_pixels = limits.max_image_pixels();
  for (const int task : response.tasks()) {
    if (task == v1::TASK_GENERATE_IMAGE) info.tasks.emplace_back("generate");
    if (task == v1::TASK_EDIT_IMAGE) info.tasks.emplace_back("edit");
    if (task == v1::TASK_DESCRIBE_IMAGE) info.tasks.emplace_back("describe");
  }
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
