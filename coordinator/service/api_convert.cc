#include "coordinator/service/api_convert.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/unknown_field_set.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/request/unicode.h"

namespace lancet {
namespace {

void SetDuration(absl::Duration from, google::protobuf::Duration& to) {
  absl::Duration rest;
  to.set_seconds(absl::IDivDuration(from, absl::Seconds(1), &rest));
  to.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

void SetImage(const EncodedImage& from, v1::Image& to) {
  to.set_format(static_cast<v1::ImageFormat>(from.format));
  to.set_width(from.width);
  to.set_height(from.height);
  to.set_data(from.data);
}

// One overload per event.
struct EventWriter {
  v1::GenerateImageResponse& to;

  void operator()(const QueuedEvent& from) const {
    to.mutable_queued()->set_position(from.position);
    if (from.estimated_wait.has_value()) {
      SetDuration(*from.estimated_wait, *to.mutable_queued()->mutable_estimated_wait());
    }
  }
  void operator()(const StartedEvent& from) const {
    v1::StartedEvent& event = *to.mutable_started();
    event.set_request_id(from.request_id);
    event.set_seed(from.seed);
    event.set_width(from.width);
    event.set_height(from.height);
    event.set_num_inference_steps(from.num_inference_steps);
    for (const std::string& warning : from.warnings) event.add_warnings(warning);
  }
  void operator()(const ProgressEvent& from) const {
    v1::ProgressEvent& event = *to.mutable_progress();
    event.set_step(from.step);
    event.set_total_steps(from.total_steps);
    SetDuration(from.elapsed, *event.mutable_elapsed());
    SetDuration(from.estimated_remaining, *event.mutable_estimated_remaining());
  }
  void operator()(const PreviewEvent& from) const {
    to.mutable_preview()->set_step(from.step);
    SetImage(from.image, *to.mutable_preview()->mutable_image());
  }
  void operator()(const ResultEvent& from) const {
    v1::ImageResult& event = *to.mutable_result();
    SetImage(from.image, *event.mutable_image());
    event.set_seed(from.seed);
    v1::Timings& timings = *event.mutable_timings();
    SetDuration(from.timings.queue, *timings.mutable_queue());
    SetDuration(from.timings.prefill, *timings.mutable_prefill());
    SetDuration(from.timings.denoise, *timings.mutable_denoise());
    SetDuration(from.timings.decode, *timings.mutable_decode());
    SetDuration(from.timings.encode, *timings.mutable_encode());
    SetDuration(from.timings.total, *timings.mutable_total());
    event.set_model_fingerprint(from.model_fingerprint);
  }
};

// Why protobuf refused a request.
absl::Status WhyMalformed(const std::string& wire) {
  google::protobuf::UnknownFieldSet fields;
  if (fields.ParseFromString(wire)) {
    for (int i = 0; i < fields.field_count(); ++i) {
      const google::protobuf::UnknownField& field = fields.field(i);
      if (field.number() == v1::GenerateImageRequest::kPromptFieldNumber &&
          field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
        const std::string& prompt = field.length_delimited();
        const size_t offset = FindInvalidUtf8(prompt);
        if (offset == std::string::npos) continue;
        return absl::InvalidArgumentError(
            absl::StrCat("prompt: not valid UTF-8 at byte ", offset, " of ", prompt.size()));
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the request (", wire.size(), " bytes) is not a lancet.v1.GenerateImageRequest"));
}

}  // namespace

absl::StatusOr<GenerateRequest> ParseGenerateRequest(const std::string& wire) {
  v1::GenerateImageRequest message;
  if (!message.ParseFromString(wire)) return WhyMalformed(wire);
  GenerateRequest request;
  request.prompt = std::move(*message.mutable_prompt());
  if (message.has_seed()) request.seed = message.seed();
  if (message.has_num_inference_steps()) request.num_inference_steps = message.num_inference_steps();
  if (message.has_guidance_scale()) request.guidance_scale = message.guidance_scale();
  if (message.has_timestep_shift()) request.timestep_shift = message.timestep_shift();
  if (message.has_guidance_interval()) {
    request.guidance_interval =
        GuidanceInterval{message.guidance_interval().start(), message.guidance_interval().end()};
  }
  if (message.has_width()) request.width = message.width();
  if (message.has_height()) request.height = message.height();
  if (message.has_preview()) {
    const v1::PreviewOptions& from = message.preview();
    PreviewOptions preview;
    preview.every_n_steps = from.every_n_steps();
    preview.method = from.method();
    if (from.has_max_side()) preview.max_side = from.max_side();
    preview.format = from.format();
    request.preview = preview;
  }
  request.output_format = message.output_format();
  request.priority = message.priority();
  return request;
}

std::string SerializeEvent(const ClientEvent& event) {
  v1::GenerateImageResponse message;
  std::visit(EventWriter{message}, event);
  return message.SerializeAsString();
}

v1::GetModelInfoResponse ToProto(const ModelInfo& info, const std::vector<GroupInfo>& groups, bool draining) {
  v1::GetModelInfoResponse to;
  to.set_name(info.card.name);
  to.set_fingerprint(info.fingerprint);
  to.set_quantization(info.quantization);
  to.set_default_width(info.card.default_size.width);
  to.set_default_height(info.card.default_size.height);
  for (const CardSize& size : info.card.sizes) {
    v1::ImageSize& s = *to.add_recommended_sizes();
    s.set_width(size.width);
    s.set_height(size.height);
  }
  v1::Limits& limits = *to.mutable_limits();
  limits.set_max_prompt_bytes(info.limits.max_prompt_bytes);
  limits.set_max_prompt_tokens(info.limits.max_prompt_tokens);
  limits.set_max_steps(info.limits.max_steps);
  limits.set_max_side(info.limits.max_side);
  limits.set_max_pixels(info.limits.max_pixels);
  limits.set_max_queue(info.max_queue);
  for (const GroupInfo& group : groups) {
    v1::GroupInfo& g = *to.add_groups();
    g.set_name(group.name);
    g.set_world_size(group.world_size);
    g.set_state(!group.serving ? v1::GROUP_STATE_FORMING
                : draining     ? v1::GROUP_STATE_DRAINING
                               : v1::GROUP_STATE_SERVING);
    g.set_active_requests(group.active_requests);
    g.set_device(group.device);
  }
  to.set_server_version(info.server_version);
  return to;
}

std::string SerializeRetryDetails(int code, absl::string_view message, absl::Duration retry_after) {
  // Written by hand because the distribution ships no google/rpc headers:
  //   google.rpc.Status    { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
  //   google.rpc.RetryInfo { google.protobuf.Duration retry_delay = 1; }
  google::protobuf::Duration delay;
  SetDuration(retry_after, delay);
  google::protobuf::UnknownFieldSet info;
  info.AddLengthDelimited(1, delay.SerializeAsString());
  google::protobuf::Any detail;
  detail.set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  info.SerializeToString(detail.mutable_value());
  google::protobuf::UnknownFieldSet status;
  status.AddVarint(1, static_cast<uint64_t>(code));
  status.AddLengthDelimited(2, std::string(message));
  status.AddLengthDelimited(3, detail.SerializeAsString());
  std::string wire;
  status.SerializeToString(&wire);
  return wire;
}

}  // namespace lancet
