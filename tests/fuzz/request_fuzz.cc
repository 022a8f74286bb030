// A message from the wire, read as each of the three requests: parsed, and admitted or refused. What is
// admitted keeps within every limit.

#include <google/protobuf/stubs/logging.h>

#include <optional>
#include <string>

#include "coordinator/request/admission.h"
#include "coordinator/request/unicode.h"
#include "coordinator/service/api_convert.h"
#include "tests/fuzz/fuzzing.h"

namespace lancet {
namespace {

bool Between(double value, double low, double high) { return value >= low && value <= high; }

void CheckSampler(const SamplerParams& sampler, const Limits& limits) {
  Require(Between(sampler.num_steps, 1, limits.max_steps), "steps");
  Require(Between(sampler.guidance_scale, 0, kMaxGuidanceScale), "guidance scale");
  Require(Between(sampler.timestep_shift, kMinTimestepShift, kMaxTimestepShift), "timestep shift");
  Require(Between(sampler.guidance_start, 0, sampler.guidance_end) && sampler.guidance_end <= 1,
          "guidance interval");
}

void CheckPreview(const std::optional<PreviewPlan>& preview, const Limits& limits) {
  if (!preview.has_value()) return;
  Require(Between(preview->every_n_steps, 1, limits.max_steps), "steps between previews");
  Require(Between(preview->max_side, kMinPreviewSide, kMaxPreviewSide), "side of previews");
}

void CheckText(const std::string& text, const Limits& limits) {
  Require(text.size() <= static_cast<size_t>(limits.max_prompt_bytes), "bytes of a text");
  Require(FindInvalidUtf8(text) == std::string::npos, "UTF-8 of a text");
}

void CheckAdmitted(const AdmittedRequest& request, const Limits& limits) {
  const GenerateParams& params = request.params;
  Require(params.width >= kPixelsPerLatent && params.width <= limits.max_side &&
              params.width % kPixelsPerLatent == 0,
          "width");
  Require(params.height >= kPixelsPerLatent && params.height <= limits.max_side &&
              params.height % kPixelsPerLatent == 0,
          "height");
  Require(int64_t{params.width} * params.height <= limits.max_pixels, "pixels");
  CheckText(params.prompt, limits);
  CheckSampler(params.sampler, limits);
  CheckPreview(request.preview, limits);
}

void CheckAdmitted(const AdmittedEdit& request, const Limits& limits) {
  CheckText(request.params.instruction, limits);
  CheckSampler(request.params.sampler, limits);
  CheckPreview(request.preview, limits);
  Require(Between(request.size.preset.latent_side, kMinPresetSide, kMaxPresetSide), "side of the picture");
}

void CheckAdmitted(const AdmittedDescribe& request, const Limits& limits) {
  CheckText(request.params.question, limits);
  CheckText(request.params.system_prompt, limits);
  Require(Between(request.params.max_new_tokens, 1, limits.max_new_tokens), "tokens of the answer");
  Require(request.params.temperature >= 0, "temperature");
}

// `parse` makes a request of the bytes, or says InvalidArgument.
template <typename Parse>
void CheckMessage(const std::string& wire, const Parse& parse, const Limits& limits) {
  static const ModelCard card;
  const auto raw = parse(wire);
  if (!raw.ok()) {
    Require(absl::IsInvalidArgument(raw.status()), "a malformed message is InvalidArgument");
    return;
  }
  const auto admitted = Admit(*raw, limits, card, 1);
  if (admitted.ok()) {
    CheckAdmitted(*admitted, limits);
  } else {
    Require(absl::IsInvalidArgument(admitted.status()), "a refusal is InvalidArgument");
  }
}

}  // namespace
}  // namespace lancet

// Called by libFuzzer once, before the first input.
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  google::protobuf::SetLogHandler(nullptr);  // it has a line for every prompt that is not UTF-8
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const lancet::Limits limits;
  const std::string wire(lancet::AsText(data, size));
  lancet::CheckMessage(wire, lancet::ParseGenerateRequest, limits);
  lancet::CheckMessage(wire, lancet::ParseEditRequest, limits);
  lancet::CheckMessage(wire, lancet::ParseDescribeRequest, limits);
  return 0;
}
