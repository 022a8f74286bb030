#include "coordinator/request/admission.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "coordinator/request/unicode.h"

namespace lancet {
namespace {

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// low <= value <= high, written so that NaN fails.
template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(field, ": ", value, " is not from ", low, " to ", high);
}

// Enums of the API count from 0 (unspecified) without gaps.
absl::Status CheckEnum(absl::string_view field, int value, int highest) {
  if (value >= 0 && value <= highest) return absl::OkStatus();
  return Invalid(field, ": ", value, " is not a known value (0 to ", highest, ")");
}

absl::StatusOr<std::string> AdmitPrompt(const std::string& prompt, const Limits& limits) {
  if (prompt.size() > static_cast<size_t>(std::max(limits.max_prompt_bytes, 0))) {
    return Invalid("prompt: ", prompt.size(), " bytes are more than the limit of ", limits.max_prompt_bytes);
  }
  if (const size_t offset = FindInvalidUtf8(prompt); offset != absl::string_view::npos) {
    return Invalid("prompt: not valid UTF-8 at byte ", offset, " of ", prompt.size());
  }
  return std::string(StripWhitespace(prompt));
}

absl::StatusOr<SamplerParams> AdmitSampler(const GenerateRequest& raw, const Limits& limits) {
  SamplerParams sampler;
  sampler.num_steps = raw.num_inference_steps.value_or(sampler.num_steps);
  sampler.guidance_scale = raw.guidance_scale.value_or(sampler.guidance_scale);
  sampler.timestep_shift = raw.timestep_shift.value_or(sampler.timestep_shift);
  if (raw.guidance_interval.has_value()) {
    sampler.guidance_start = raw.guidance_interval->start;
    sampler.guidance_end = raw.guidance_interval->end;
  }
  LANCET_RETURN_IF_ERROR(CheckRange("num_inference_steps", sampler.num_steps, 1, limits.max_steps));
  LANCET_RETURN_IF_ERROR(CheckRange("guidance_scale", sampler.guidance_scale, 0.0f, kMaxGuidanceScale));
  LANCET_RETURN_IF_ERROR(
      CheckRange("timestep_shift", sampler.timestep_shift, kMinTimestepShift, kMaxTimestepShift));
  LANCET_RETURN_IF_ERROR(CheckRange("guidance_interval.start", sampler.guidance_start, 0.0f, 1.0f));
  LANCET_RETURN_IF_ERROR(CheckRange("guidance_interval.end", sampler.guidance_end, 0.0f, 1.0f));
  if (sampler.guidance_start > sampler.guidance_end) {
    return Invalid("guidance_interval: start ", sampler.guidance_start, " is above end ",
                   sampler.guidance_end);
  }
  return sampler;
}

absl::Status CheckSide(absl::string_view field, int32_t value, const Limits& limits) {
  if (value < kPixelsPerLatent || value > limits.max_side) {
    return Invalid(field, ": ", value, " is not from ", kPixelsPerLatent, " to ", limits.max_side);
  }
  if (value % kPixelsPerLatent != 0) {
    return Invalid(field, ": ", value, " is not a multiple of ", kPixelsPerLatent, " (", kPixelsPerLatent,
                   " to ", limits.max_side, ")");
  }
  return absl::OkStatus();
}

absl::StatusOr<CardSize> AdmitSize(const GenerateRequest& raw, const Limits& limits, const ModelCard& card) {
  if (raw.width.has_value() != raw.height.has_value()) {
    return raw.width.has_value()
               ? Invalid("height: not set, but width is ", *raw.width, "; set both or neither")
               : Invalid("width: not set, but height is ", *raw.height, "; set both or neither");
  }
  const CardSize size{raw.width.value_or(card.default_size.width),
                      raw.height.value_or(card.default_size.height)};
  LANCET_RETURN_IF_ERROR(CheckSide("width", size.width, limits));
  LANCET_RETURN_IF_ERROR(CheckSide("height", size.height, limits));
  const int64_t pixels = int64_t{size.width} * size.height;
  if (pixels > limits.max_pixels) {
    return Invalid("width, height: ", size.width, " x ", size.height, " = ", pixels,
                   " pixels are more than the limit of ", limits.max_pixels);
  }
  return size;
}

absl::StatusOr<std::optional<PreviewPlan>> AdmitPreview(const GenerateRequest& raw, const Limits& limits) {
  if (!raw.preview.has_value()) return std::nullopt;
  const PreviewOptions& options = *raw.preview;
  PreviewPlan plan;
  LANCET_RETURN_IF_ERROR(CheckRange("preview.every_n_steps", options.every_n_steps, 1, limits.max_steps));
  LANCET_RETURN_IF_ERROR(CheckEnum("preview.method", options.method, static_cast<int>(PreviewMethod::kVae)));
  LANCET_RETURN_IF_ERROR(CheckEnum("preview.format", options.format, static_cast<int>(ImageFormat::kWebp)));
  plan.every_n_steps = options.every_n_steps;
  if (options.method != 0) plan.method = static_cast<PreviewMethod>(options.method);
  plan.max_side = options.max_side.value_or(plan.max_side);
  LANCET_RETURN_IF_ERROR(CheckRange("preview.max_side", plan.max_side, kMinPreviewSide, kMaxPreviewSide));
  if (options.format != 0) plan.format = static_cast<ImageFormat>(options.format);
  return plan;
}

std::string SizeText(const CardSize& size) { return absl::StrCat(size.width, "x", size.height); }

// Names a few of the sizes that the checkpoint was made for; there may be many.
std::string UnusualSizeWarning(const CardSize& size, const std::vector<CardSize>& known) {
  constexpr size_t kMaxNamed = 6;
  std::string text = absl::StrCat("size ", SizeText(size), " is not one this checkpoint was made for (");
  for (size_t i = 0; i < known.size() && i < kMaxNamed; ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", SizeText(known[i]));
  }
  absl::StrAppend(&text, known.size() > kMaxNamed ? ", ...)" : ")", "; the picture may suffer");
  return text;
}

}  // namespace

absl::StatusOr<AdmittedRequest> Admit(const GenerateRequest& raw, const Limits& limits, const ModelCard& card,
                                      uint64_t random_seed) {
  AdmittedRequest admitted;
  LANCET_ASSIGN_OR_RETURN(admitted.params.prompt, AdmitPrompt(raw.prompt, limits));
  LANCET_ASSIGN_OR_RETURN(admitted.params.sampler, AdmitSampler(raw, limits));
  LANCET_ASSIGN_OR_RETURN(const CardSize size, AdmitSize(raw, limits, card));
  LANCET_ASSIGN_OR_RETURN(admitted.preview, AdmitPreview(raw, limits));
  LANCET_RETURN_IF_ERROR(CheckEnum("output_format", raw.output_format, static_cast<int>(ImageFormat::kWebp)));
  LANCET_RETURN_IF_ERROR(CheckEnum("priority", raw.priority, static_cast<int>(Priority::kHigh)));
  admitted.params.seed = raw.seed.value_or(random_seed);
  admitted.params.width = size.width;
  admitted.params.height = size.height;
  if (raw.output_format != 0) admitted.output_format = static_cast<ImageFormat>(raw.output_format);
  if (raw.priority != 0) admitted.priority = static_cast<Priority>(raw.priority);
  if (!card.sizes.empty() && std::find(card.sizes.begin(), card.sizes.end(), size) == card.sizes.end()) {
    admitted.warnings.push_back(UnusualSizeWarning(size, card.sizes));
  }
  return admitted;
}

}  // namespace lancet
