#include "coordinator/request/admission.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "coordinator/request/prompt_builder.h"
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

// Numbers of lancet.v1.Sampler.
constexpr int kSamplerDpmpp2m = 2;
constexpr int kHighestSampler = kSamplerDpmpp2m;

// By number of lancet.v1.Resolution; 0 is unspecified.
constexpr std::array<absl::string_view, 6> kPresetNames = {
    "", "image_256res", "image_512res", "image_768res", "video_360p", "video_480p"};
constexpr int kHighestResolution = static_cast<int>(kPresetNames.size()) - 1;
constexpr int kHighestImageResolution = 3;

absl::StatusOr<std::string> AdmitText(absl::string_view field, const std::string& prompt,
                                      const Limits& limits) {
  if (prompt.size() > static_cast<size_t>(std::max(limits.max_prompt_bytes, 0))) {
    return Invalid(field, ": ", prompt.size(), " bytes are more than the limit of ", limits.max_prompt_bytes);
  }
  if (const size_t offset = FindInvalidUtf8(prompt); offset != absl::string_view::npos) {
    return Invalid(field, ": not valid UTF-8 at byte ", offset, " of ", prompt.size());
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
  LANCET_RETURN_IF_ERROR(CheckEnum("sampler", raw.sampler, kHighestSampler));
  sampler.solver = raw.sampler == kSamplerDpmpp2m ? Solver::kDpmpp2m : Solver::kEuler;
  return sampler;
}

absl::StatusOr<InputSize> AdmitResolution(int resolution, const ModelCard& card) {
  LANCET_RETURN_IF_ERROR(CheckEnum("resolution", resolution, kHighestResolution));
  InputSize size{.resolution = resolution > 0 ? resolution : DefaultResolution(card), .preset = {}};
  LANCET_ASSIGN_OR_RETURN(size.preset, FindResizePreset(kPresetNames[size.resolution]));
  return size;
}

// Width and height of an edit stand for their area alone: the picture keeps its own shape.
absl::StatusOr<InputSize> AdmitArea(int32_t width, int32_t height, const Limits& limits) {
  LANCET_RETURN_IF_ERROR(CheckRange("width", width, kPixelsPerLatent, limits.max_side));
  LANCET_RETURN_IF_ERROR(CheckRange("height", height, kPixelsPerLatent, limits.max_side));
  const int64_t pixels = int64_t{width} * height;
  if (pixels < int64_t{kMinPresetSide} * kMinPresetSide ||
      pixels > int64_t{kMaxPresetSide} * kMaxPresetSide) {
    return Invalid("width, height: ", width, " x ", height, " = ", pixels, " pixels are not from ",
                   kMinPresetSide, " x ", kMinPresetSide, " to ", kMaxPresetSide, " x ", kMaxPresetSide);
  }
  const auto side = static_cast<int32_t>(
      kPixelsPerLatent * std::lround(std::sqrt(static_cast<double>(pixels)) / kPixelsPerLatent));
  InputSize size;
  LANCET_ASSIGN_OR_RETURN(size.preset, ResizePresetOfSide(side));
  return size;
}

absl::StatusOr<InputSize> AdmitInputSize(const EditRequest& raw, const Limits& limits,
                                         const ModelCard& card) {
  const GenerateRequest& drawing = raw.drawing;
  if (drawing.width.has_value() != drawing.height.has_value()) {
    return drawing.width.has_value()
               ? Invalid("height: not set, but width is ", *drawing.width, "; set both or neither")
               : Invalid("width: not set, but height is ", *drawing.height, "; set both or neither");
  }
  if (!drawing.width.has_value()) return AdmitResolution(raw.resolution, card);
  if (raw.resolution != 0) {
    return Invalid("resolution: ", raw.resolution,
                   " is set, but so are width and height; set one or the other");
  }
  return AdmitArea(*drawing.width, *drawing.height, limits);
}

absl::Status CheckImages(const std::vector<std::string>& images) {
  if (images.empty()) return Invalid("images: none is given; expected one");
  if (images.size() > 1) {
    return Invalid("images: ", images.size(),
                   " are given; expected one: the model's released weights cannot tell several apart");
  }
  return absl::OkStatus();
}

absl::Status CheckPriority(int priority) {
  return CheckEnum("priority", priority, static_cast<int>(Priority::kHigh));
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

int DefaultResolution(const ModelCard& card) {
  const double side = std::sqrt(static_cast<double>(card.default_size.width) * card.default_size.height);
  const auto distance = [side](int resolution) {
    const auto preset = FindResizePreset(kPresetNames[resolution]);
    return preset.ok() ? std::abs(preset->latent_side - side) : std::numeric_limits<double>::infinity();
  };
  int nearest = 1;
  for (int i = 2; i <= kHighestImageResolution; ++i) nearest = distance(i) < distance(nearest) ? i : nearest;
  return nearest;
}

absl::StatusOr<AdmittedRequest> Admit(const GenerateRequest& raw, const Limits& limits, const ModelCard& card,
                                      uint64_t random_seed) {
  AdmittedRequest admitted;
  LANCET_ASSIGN_OR_RETURN(admitted.params.prompt, AdmitText("prompt", raw.prompt, limits));
  LANCET_ASSIGN_OR_RETURN(admitted.params.sampler, AdmitSampler(raw, limits));
  LANCET_ASSIGN_OR_RETURN(const CardSize size, AdmitSize(raw, limits, card));
  LANCET_ASSIGN_OR_RETURN(admitted.preview, AdmitPreview(raw, limits));
  LANCET_RETURN_IF_ERROR(CheckEnum("output_format", raw.output_format, static_cast<int>(ImageFormat::kWebp)));
  LANCET_RETURN_IF_ERROR(CheckPriority(raw.priority));
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

absl::StatusOr<AdmittedEdit> Admit(const EditRequest& raw, const Limits& limits, const ModelCard& card,
                                   uint64_t random_seed) {
  const GenerateRequest& drawing = raw.drawing;
  AdmittedEdit admitted;
  LANCET_RETURN_IF_ERROR(CheckImages(raw.images));
  LANCET_ASSIGN_OR_RETURN(admitted.params.instruction, AdmitText("instruction", drawing.prompt, limits));
  LANCET_ASSIGN_OR_RETURN(admitted.params.sampler, AdmitSampler(drawing, limits));
  LANCET_ASSIGN_OR_RETURN(admitted.size, AdmitInputSize(raw, limits, card));
  LANCET_ASSIGN_OR_RETURN(admitted.preview, AdmitPreview(drawing, limits));
  LANCET_RETURN_IF_ERROR(
      CheckEnum("output_format", drawing.output_format, static_cast<int>(ImageFormat::kWebp)));
  LANCET_RETURN_IF_ERROR(CheckPriority(drawing.priority));
  admitted.params.seed = drawing.seed.value_or(random_seed);
  admitted.params.sample_condition = raw.sample_condition;
  if (drawing.output_format != 0) admitted.output_format = static_cast<ImageFormat>(drawing.output_format);
  if (drawing.priority != 0) admitted.priority = static_cast<Priority>(drawing.priority);
  return admitted;
}

absl::StatusOr<AdmittedDescribe> Admit(const DescribeRequest& raw, const Limits& limits,
                                       const ModelCard& card, uint64_t random_seed) {
  AdmittedDescribe admitted;
  DescribeParams& params = admitted.params;
  LANCET_RETURN_IF_ERROR(CheckImages(raw.images));
  LANCET_ASSIGN_OR_RETURN(params.question,
                          AdmitText("question", raw.question.value_or(kDescribeQuestion), limits));
  LANCET_ASSIGN_OR_RETURN(params.system_prompt,
                          AdmitText("system_prompt", raw.system_prompt.value_or(kDescribeSystem), limits));
  params.max_new_tokens = raw.max_new_tokens.value_or(std::min(params.max_new_tokens, limits.max_new_tokens));
  LANCET_RETURN_IF_ERROR(CheckRange("max_new_tokens", params.max_new_tokens, 1, limits.max_new_tokens));
  params.temperature = raw.temperature.value_or(params.temperature);
  LANCET_RETURN_IF_ERROR(CheckRange("temperature", params.temperature, 0.0f, kMaxRequestTemperature));
  LANCET_ASSIGN_OR_RETURN(admitted.size, AdmitResolution(raw.resolution, card));
  LANCET_RETURN_IF_ERROR(CheckPriority(raw.priority));
  params.seed = raw.seed.value_or(random_seed);
  if (raw.priority != 0) admitted.priority = static_cast<Priority>(raw.priority);
  return admitted;
}

}  // namespace lancet
