// A message from the wire: parsed, and admitted or refused. What is admitted keeps within every limit.

#include <google/protobuf/stubs/logging.h>

#include <string>

#include "coordinator/request/admission.h"
#include "coordinator/request/unicode.h"
#include "coordinator/service/api_convert.h"
#include "tests/fuzz/fuzzing.h"

namespace lancet {
namespace {

bool Between(double value, double low, double high) { return value >= low && value <= high; }

void CheckAdmitted(const AdmittedRequest& request, const Limits& limits) {
  const GenerateParams& params = request.params;
  Require(params.width >= kPixelsPerLatent && params.width <= limits.max_side &&
              params.width % kPixelsPerLatent == 0,
          "width");
  Require(params.height >= kPixelsPerLatent && params.height <= limits.max_side &&
              params.height % kPixelsPerLatent == 0,
          "height");
  Require(int64_t{params.width} * params.height <= limits.max_pixels, "pixels");
  Require(params.prompt.size() <= static_cast<size_t>(limits.max_prompt_bytes), "bytes of the prompt");
  Require(FindInvalidUtf8(params.prompt) == std::string::npos, "UTF-8 of the prompt");
  const SamplerParams& sampler = params.sampler;
  Require(Between(sampler.num_steps, 1, limits.max_steps), "steps");
  Require(Between(sampler.guidance_scale, 0, kMaxGuidanceScale), "guidance scale");
  Require(Between(sampler.timestep_shift, kMinTimestepShift, kMaxTimestepShift), "timestep shift");
  Require(Between(sampler.guidance_start, 0, sampler.guidance_end) && sampler.guidance_end <= 1,
          "guidance interval");
  if (request.preview.has_value()) {
    Require(Between(request.preview->every_n_steps, 1, limits.max_steps), "steps between previews");
    Require(Between(request.preview->max_side, kMinPreviewSide, kMaxPreviewSide), "side of previews");
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
  static const lancet::ModelCard card;
  const auto raw = lancet::ParseGenerateRequest(std::string(lancet::AsText(data, size)));
  if (!raw.ok()) {
    lancet::Require(absl::IsInvalidArgument(raw.status()), "a malformed message is InvalidArgument");
    return 0;
  }
  const auto admitted = lancet::Admit(*raw, limits, card, 1);
  if (admitted.ok()) {
    lancet::CheckAdmitted(*admitted, limits);
  } else {
    lancet::Require(absl::IsInvalidArgument(admitted.status()), "a refusal is InvalidArgument");
  }
  return 0;
}
