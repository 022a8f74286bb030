#include "coordinator/service/api_convert.h"

#include <google/protobuf/any.pb.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/unknown_field_set.h>

#include <initializer_list>
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

void SetTimings(const StageTimings& from, v1::Timings& to) {
  SetDuration(from.queue, *to.mutable_queue());
  SetDuration(from.prefill, *to.mutable_prefill());
  SetDuration(from.denoise, *to.mutable_denoise());
  SetDuration(from.decode, *to.mutable_decode());
  SetDuration(from.encode, *to.mutable_encode());
  SetDuration(from.total, *to.mutable_total());
  SetDuration(from.input, *to.mutable_input());
  SetDuration(from.answer, *to.mutable_answer());
}

void SetQueued(const QueuedEvent& from, v1::QueuedEvent& to) {
  to.set_position(from.position);
  if (from.estimated_wait.has_value()) SetDuration(*from.estimated_wait, *to.mutable_estimated_wait());
}

void SetStarted(const StartedEvent& from, v1::StartedEvent& to) {
  to.set_request_id(from.request_id);
  to.set_seed(from.seed);
  to.set_width(from.width);
  to.set_height(from.height);
  to.set_num_inference_steps(from.num_inference_steps);
  for (const std::string& warning : from.warnings) to.add_warnings(warning);
  to.set_max_new_tokens(from.max_new_tokens);
  if (!from.input.has_value()) return;
  v1::InputImage& input = *to.mutable_input();
  input.set_width(from.input->width);
  input.set_height(from.input->height);
  input.set_resolution(static_cast<v1::Resolution>(from.input->resolution));
  input.set_vision_width(from.input->vision_width);
  input.set_vision_height(from.input->vision_height);
}

// One overload per event. Response is the one of a call that draws.
template <typename Response>
struct PictureEventWriter {
  Response& to;

  void operator()(const QueuedEvent& from) const { SetQueued(from, *to.mutable_queued()); }
  void operator()(const StartedEvent& from) const { SetStarted(from, *to.mutable_started()); }
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
    SetTimings(from.timings, *event.mutable_timings());
    event.set_model_fingerprint(from.model_fingerprint);
  }
  // Of other calls.
  void operator()(const DeltaEvent&) const {}
  void operator()(const TextResultEvent&) const {}
};

struct TextEventWriter {
  v1::DescribeImageResponse& to;

  void operator()(const QueuedEvent& from) const { SetQueued(from, *to.mutable_queued()); }
  void operator()(const StartedEvent& from) const { SetStarted(from, *to.mutable_started()); }
  void operator()(const DeltaEvent& from) const {
    to.mutable_delta()->set_text(from.text);
    to.mutable_delta()->set_token_count(from.token_count);
  }
  void operator()(const TextResultEvent& from) const {
    v1::TextResult& event = *to.mutable_result();
    event.set_text(from.text);
    event.set_finish_reason(static_cast<v1::FinishReason>(from.finish_reason));
    event.mutable_usage()->set_prompt_tokens(from.prompt_tokens);
    event.mutable_usage()->set_answer_tokens(from.answer_tokens);
    event.set_seed(from.seed);
    SetTimings(from.timings, *event.mutable_timings());
    event.set_model_fingerprint(from.model_fingerprint);
  }
  // Of other calls.
  void operator()(const ProgressEvent&) const {}
  void operator()(const PreviewEvent&) const {}
  void operator()(const ResultEvent&) const {}
};

// A field of text, for errors.
struct TextField {
  int number = 0;
  const char* name = nullptr;
};

// Why protobuf refused a request.
absl::Status WhyMalformed(const std::string& wire, const char* message,
                          std::initializer_list<TextField> texts) {
  google::protobuf::UnknownFieldSet fields;
  if (fields.ParseFromString(wire)) {
    for (int i = 0; i < fields.field_count(); ++i) {
      const google::protobuf::UnknownField& field = fields.field(i);
      if (field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) continue;
      for (const TextField& text : texts) {
        if (field.number() != text.number) continue;
        const std::string& value = field.length_delimited();
        const size_t offset = FindInvalidUtf8(value);
        if (offset == std::string::npos) continue;
        return absl::InvalidArgumentError(
            absl::StrCat(text.name, ": not valid UTF-8 at byte ", offset, " of ", value.size()));
      }
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the request (", wire.size(), " bytes) is not a lancet.v1.", message));
}

// What requests that draw have in common.
template <typename Message>
GenerateRequest TakeDrawing(const Message& message) {
  GenerateRequest request;
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
  request.sampler = message.sampler();
  request.idempotency_key = message.idempotency_key();
  return request;
}

std::vector<std::string> TakeImages(google::protobuf::RepeatedPtrField<std::string>& from) {
  std::vector<std::string> images;
  for (std::string& image : from) images.push_back(std::move(image));
  return images;
}

}  // namespace

absl::StatusOr<GenerateRequest> ParseGenerateRequest(const std::string& wire) {
  v1::GenerateImageRequest message;
  if (!message.ParseFromString(wire)) {
    return WhyMalformed(wire, "GenerateImageRequest",
                        {{v1::GenerateImageRequest::kPromptFieldNumber, "prompt"},
                         {v1::GenerateImageRequest::kIdempotencyKeyFieldNumber, "idempotency_key"}});
  }
  GenerateRequest request = TakeDrawing(message);
  request.prompt = std::move(*message.mutable_prompt());
  return request;
}

absl::StatusOr<EditRequest> ParseEditRequest(const std::string& wire) {
  v1::EditImageRequest message;
  if (!message.ParseFromString(wire)) {
    return WhyMalformed(wire, "EditImageRequest",
                        {{v1::EditImageRequest::kInstructionFieldNumber, "instruction"},
                         {v1::EditImageRequest::kIdempotencyKeyFieldNumber, "idempotency_key"}});
  }
  EditRequest request;
  request.drawing = TakeDrawing(message);
  request.drawing.prompt = std::move(*message.mutable_instruction());
  request.images = TakeImages(*message.mutable_images());
  request.resolution = message.resolution();
  request.sample_condition = message.sample_condition();
  return request;
}

absl::StatusOr<DescribeRequest> ParseDescribeRequest(const std::string& wire) {
  v1::DescribeImageRequest message;
  if (!message.ParseFromString(wire)) {
    return WhyMalformed(wire, "DescribeImageRequest",
                        {{v1::DescribeImageRequest::kQuestionFieldNumber, "question"},
                         {v1::DescribeImageRequest::kSystemPromptFieldNumber, "system_prompt"},
                         {v1::DescribeImageRequest::kIdempotencyKeyFieldNumber, "idempotency_key"}});
  }
  DescribeRequest request;
  request.images = TakeImages(*message.mutable_images());
  if (message.has_question()) request.question = message.question();
  if (message.has_system_prompt()) request.system_prompt = message.system_prompt();
  if (message.has_max_new_tokens()) request.max_new_tokens = message.max_new_tokens();
  if (message.has_temperature()) request.temperature = message.temperature();
  if (message.has_seed()) request.seed = message.seed();
  request.resolution = message.resolution();
  request.priority = message.priority();
  request.idempotency_key = message.idempotency_key();
  return request;
}

std::string SerializeGenerateEvent(const ClientEvent& event) {
  v1::GenerateImageResponse message;
  std::visit(PictureEventWriter<v1::GenerateImageResponse>{message}, event);
  return message.SerializeAsString();
}

std::string SerializeEditEvent(const ClientEvent& event) {
  v1::EditImageResponse message;
  std::visit(PictureEventWriter<v1::EditImageResponse>{message}, event);
  return message.SerializeAsString();
}

std::string SerializeDescribeEvent(const ClientEvent& event) {
  v1::DescribeImageResponse message;
  std::visit(TextEventWriter{message}, event);
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
  limits.set_max_new_tokens(info.limits.max_new_tokens);
  limits.set_max_image_bytes(static_cast<int64_t>(info.limits.image.max_bytes));
  limits.set_max_image_side(info.limits.image.max_side);
  limits.set_max_image_pixels(info.limits.image.max_pixels);
  bool serving = false;
  bool serving_vision = false;
  for (const GroupInfo& group : groups) {
    serving = serving || group.serving;
    serving_vision = serving_vision || (group.serving && group.has_vision);
  }
  to.add_tasks(v1::TASK_GENERATE_IMAGE);
  if (serving ? serving_vision : info.has_vision) {
    to.add_tasks(v1::TASK_EDIT_IMAGE);
    to.add_tasks(v1::TASK_DESCRIBE_IMAGE);
  }
  to.set_default_resolution(static_cast<v1::Resolution>(DefaultResolution(info.card)));
  for (const GroupInfo& group : groups) {
    v1::GroupInfo& g = *to.add_groups();
    g.set_name(group.name);
    g.set_world_size(group.world_size);
    const bool leaving = draining || group.leaving;
    g.set_state(!group.serving ? v1::GROUP_STATE_FORMING
                : leaving      ? v1::GROUP_STATE_DRAINING
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
