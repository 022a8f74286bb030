// The gate for what clients ask: checks every field of a request against its limit and fills in what was left
// open. Past this point a request is known to be sound. Mirrors GenerateImageRequest of
// protos/lancet/v1/lancet.proto in plain structs; enums arrive as the raw numbers of the wire and are checked
// here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model_config.h"
#include "common/request_plan.h"
#include "coordinator/request/image_codec.h"
#include "coordinator/request/image_decoder.h"
#include "coordinator/request/resize_presets.h"

namespace lancet {

// As configured for the server; what GetModelInfo reports.
struct Limits {
  int32_t max_prompt_bytes = 16384;
  int32_t max_prompt_tokens = 2048;  // checked by PlanBuilder, which has the tokenizer
  int32_t max_steps = 1000;
  int32_t max_side = 2048;        // pixels
  int64_t max_pixels = 1048576;   // width * height
  int32_t max_new_tokens = 1024;  // of an answer
  DecodeLimits image;             // of pictures that clients send
};

// Bounds of the API that no flag changes.
inline constexpr float kMaxGuidanceScale = 100.0f;
inline constexpr float kMinTimestepShift = 0.01f;
inline constexpr float kMaxTimestepShift = 100.0f;
inline constexpr int32_t kMinPreviewSide = 16;
inline constexpr int32_t kMaxPreviewSide = 4096;
inline constexpr int32_t kDefaultPreviewSide = 256;
inline constexpr float kMaxRequestTemperature = 10.0f;

// The numbers are those of lancet.v1.Priority.
enum class Priority : uint8_t { kLow = 1, kNormal = 2, kHigh = 3 };

// --- What the client sent, unchecked. ---

struct GuidanceInterval {
  float start = 0;
  float end = 0;
};

struct PreviewOptions {
  int32_t every_n_steps = 0;
  int method = 0;  // lancet.v1.PreviewMethod
  std::optional<int32_t> max_side{};
  int format = 0;  // lancet.v1.ImageFormat
};

struct GenerateRequest {
  std::string prompt;
  std::optional<uint64_t> seed;
  std::optional<int32_t> num_inference_steps;
  std::optional<float> guidance_scale;
  std::optional<float> timestep_shift;
  std::optional<GuidanceInterval> guidance_interval;
  std::optional<int32_t> width;
  std::optional<int32_t> height;
  std::optional<PreviewOptions> preview;
  int output_format = 0;  // lancet.v1.ImageFormat
  int priority = 0;       // lancet.v1.Priority
  int sampler = 0;        // lancet.v1.Sampler
  std::string idempotency_key;
};

struct EditRequest {
  std::vector<std::string> images;  // files
  GenerateRequest drawing;          // prompt: the instruction; width, height: the area
  int resolution = 0;               // lancet.v1.Resolution
  bool sample_condition = false;
};

struct DescribeRequest {
  std::vector<std::string> images;  // files
  std::optional<std::string> question;
  std::optional<std::string> system_prompt;
  std::optional<int32_t> max_new_tokens;
  std::optional<float> temperature;
  std::optional<uint64_t> seed;
  int resolution = 0;  // lancet.v1.Resolution
  int priority = 0;    // lancet.v1.Priority
  std::string idempotency_key;
};

// --- What was made of it. ---

// Everything that decides the picture; complete and checked.
struct GenerateParams {
  std::string prompt;  // valid UTF-8, without leading and trailing white space
  uint64_t seed = 42;
  SamplerParams sampler;
  int32_t width = 0;  // pixels, multiples of 16
  int32_t height = 0;

  int64_t num_latents() const { return int64_t{width / kPixelsPerLatent} * (height / kPixelsPerLatent); }
};

// The area that pictures from clients are brought to.
struct InputSize {
  int resolution = 0;  // lancet.v1.Resolution; 0 if width and height were given
  ResizePreset preset;
};

// An edit but for its picture.
struct EditParams {
  std::string instruction;  // as GenerateParams::prompt
  uint64_t seed = 42;
  SamplerParams sampler;
  bool sample_condition = false;
};

// A question but for its picture.
struct DescribeParams {
  std::string question;  // as GenerateParams::prompt
  std::string system_prompt;
  int32_t max_new_tokens = 256;
  float temperature = 0;
  uint64_t seed = 42;
};

struct PreviewPlan {
  int32_t every_n_steps = 1;
  PreviewMethod method = PreviewMethod::kLatentRgb;
  int32_t max_side = kDefaultPreviewSide;
  ImageFormat format = ImageFormat::kJpeg;
};

struct AdmittedRequest {
  GenerateParams params;
  std::optional<PreviewPlan> preview;
  ImageFormat output_format = ImageFormat::kPng;
  Priority priority = Priority::kNormal;
  std::vector<std::string> warnings;  // for StartedEvent
};

struct AdmittedEdit {
  EditParams params;
  InputSize size;
  std::optional<PreviewPlan> preview;
  ImageFormat output_format = ImageFormat::kPng;
  Priority priority = Priority::kNormal;
};

struct AdmittedDescribe {
  DescribeParams params;
  InputSize size;
  Priority priority = Priority::kNormal;
};

// Of requests with a picture that name no resolution: the published one nearest to the checkpoint's default
// size. A number of lancet.v1.Resolution.
int DefaultResolution(const ModelCard& card);

// InvalidArgument names field, value and limit; the first violation in the order of the fields counts.
// `random_seed` is taken when the request names no seed.
absl::StatusOr<AdmittedRequest> Admit(const GenerateRequest& raw, const Limits& limits, const ModelCard& card,
                                      uint64_t random_seed);
// The pictures are only counted; what is in the files is found out when they are decoded.
absl::StatusOr<AdmittedEdit> Admit(const EditRequest& raw, const Limits& limits, const ModelCard& card,
                                   uint64_t random_seed);
absl::StatusOr<AdmittedDescribe> Admit(const DescribeRequest& raw, const Limits& limits,
                                       const ModelCard& card, uint64_t random_seed);

}  // namespace lancet
