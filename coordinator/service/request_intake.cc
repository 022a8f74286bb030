#include "coordinator/service/request_intake.h"

#include <memory>
#include <utility>

#include "common/status_macros.h"
#include "coordinator/request/idempotency_key.h"
#include "coordinator/request/image_input.h"

namespace lancet {
namespace {

InputImageInfo InfoOf(const ImageInput& input, const InputSize& size) {
  return {input.width, input.height, size.resolution, input.vision.width, input.vision.height};
}

uint64_t RandomSeed(const IntakeOptions& options, const std::string& idempotency_key) {
  return idempotency_key.empty() ? options.random() : SeedOfKey(idempotency_key);
}

void SetKey(const char* method, const std::string& wire, const std::string& key, NewRequest& request) {
  request.idempotency_key = key;
  if (!key.empty()) request.digest = DigestOf(method, wire);
}

}  // namespace

absl::StatusOr<NewRequest> IntakeGenerate(const IntakeOptions& options, const std::string& wire,
                                          uint64_t id) {
  LANCET_ASSIGN_OR_RETURN(const GenerateRequest raw, ParseGenerateRequest(wire));
  LANCET_RETURN_IF_ERROR(CheckIdempotencyKey(raw.idempotency_key));
  LANCET_ASSIGN_OR_RETURN(AdmittedRequest admitted, Admit(raw, options.info.limits, options.info.card,
                                                          RandomSeed(options, raw.idempotency_key)));
  NewRequest request;
  SetKey("generate", wire, raw.idempotency_key, request);
  LANCET_ASSIGN_OR_RETURN(request.plan, options.planners.generate(id, admitted.params));
  request.preview = admitted.preview;
  request.output_format = admitted.output_format;
  request.priority = admitted.priority;
  request.warnings = std::move(admitted.warnings);
  return request;
}

absl::StatusOr<NewRequest> IntakeEdit(const IntakeOptions& options, const std::string& wire, uint64_t id) {
  LANCET_ASSIGN_OR_RETURN(const EditRequest raw, ParseEditRequest(wire));
  LANCET_RETURN_IF_ERROR(CheckIdempotencyKey(raw.drawing.idempotency_key));
  LANCET_ASSIGN_OR_RETURN(
      const AdmittedEdit admitted,
      Admit(raw, options.info.limits, options.info.card, RandomSeed(options, raw.drawing.idempotency_key)));
  LANCET_ASSIGN_OR_RETURN(ImageInput input,
                          PrepareImage(raw.images.front(), options.info.limits.image, admitted.size.preset,
                                       /*with_condition=*/true));
  NewRequest request;
  SetKey("edit", wire, raw.drawing.idempotency_key, request);
  request.input = InfoOf(input, admitted.size);
  LANCET_ASSIGN_OR_RETURN(request.plan, options.planners.edit(id, admitted.params, std::move(input.vision),
                                                              std::move(input.condition)));
  request.preview = admitted.preview;
  request.output_format = admitted.output_format;
  request.priority = admitted.priority;
  return request;
}

absl::StatusOr<NewRequest> IntakeDescribe(const IntakeOptions& options, const std::string& wire,
                                          uint64_t id) {
  LANCET_ASSIGN_OR_RETURN(const DescribeRequest raw, ParseDescribeRequest(wire));
  LANCET_RETURN_IF_ERROR(CheckIdempotencyKey(raw.idempotency_key));
  LANCET_ASSIGN_OR_RETURN(const AdmittedDescribe admitted, Admit(raw, options.info.limits, options.info.card,
                                                                 RandomSeed(options, raw.idempotency_key)));
  LANCET_ASSIGN_OR_RETURN(ImageInput input,
                          PrepareImage(raw.images.front(), options.info.limits.image, admitted.size.preset,
                                       /*with_condition=*/false));
  NewRequest request;
  SetKey("describe", wire, raw.idempotency_key, request);
  request.input = InfoOf(input, admitted.size);
  LANCET_ASSIGN_OR_RETURN(request.plan,
                          options.planners.describe(id, admitted.params, std::move(input.vision)));
  request.text = std::make_unique<AnswerText>(options.tokenizer);
  request.priority = admitted.priority;
  return request;
}

}  // namespace lancet
