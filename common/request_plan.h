// What crosses from coordinator to worker and back, as plain structs: the coordinator decides everything, the
// ranks execute. protos/convert.h maps these to lancet.v1 messages and checks them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/rgb_image.h"

namespace lancet {

// Rotary position ids of n tokens on the three M-RoPE axes. All three have the same length.
struct Positions {
  std::vector<int32_t> t;
  std::vector<int32_t> h;
  std::vector<int32_t> w;

  friend bool operator==(const Positions&, const Positions&) = default;
};

// A causal run of text tokens that comes before the picture. Its keys and values go to the conditional cache,
// the unconditional one, or both; with the same positions in either (the reference's cached behaviour).
struct PrefixBlock {
  std::vector<int32_t> token_ids;
  Positions positions;  // one per token
  bool conditional = true;
  bool unconditional = true;
};

// The picture to be drawn: a start marker, latent_height * latent_width latents (row by row) and an end
// marker.
struct TargetBlock {
  int32_t latent_height = 0;  // in latents; pixels / 16
  int32_t latent_width = 0;
  int32_t start_token_id = 0;  // <|vision_start|>
  int32_t end_token_id = 0;    // <|vision_end|>
  Positions conditional;       // 2 + latent_height * latent_width entries each
  Positions unconditional;

  int64_t num_latents() const { return int64_t{latent_height} * latent_width; }
};

// Euler sampling with classifier-free guidance. Defaults are the model's published ones.
struct SamplerParams {
  int32_t num_steps = 30;
  float timestep_shift = 3.5f;
  float guidance_scale = 4.0f;  // guidance is off at <= 1
  float guidance_start = 0.4f;  // guided while start < t <= end
  float guidance_end = 1.0f;
};

// One text-to-image request, complete: nothing else is needed to draw it.
struct RequestPlan {
  uint64_t request_id = 0;  // unique within an epoch of the group
  std::vector<PrefixBlock> prefix;
  TargetBlock target;
  SamplerParams sampler;
  uint64_t seed = 42;
};

enum class WorkKind : uint8_t {
  kPrefill = 0,  // run prefix block `index` through the trunk and cache its keys and values
  kDenoise = 1,  // one Euler step, number `index`
  kDecode = 2,   // latents to pixels; the last work of a request
};

enum class PreviewMethod : uint8_t {
  kNone = 0,
  kLatentRgb = 1,  // one pixel per latent, by a linear map
  kVae = 2,        // a full decode of the current estimate
};

// One piece of an iteration.
struct Work {
  uint64_t request_id = 0;
  WorkKind kind = WorkKind::kPrefill;
  int32_t index = 0;
  PreviewMethod preview = PreviewMethod::kNone;  // kDenoise only: also return a preview after the step
};

// What the ranks of a group execute, in the order of the numbers; equal on every rank.
struct AdmitCommand {
  RequestPlan plan;
};
struct IterateCommand {
  std::vector<Work> work;
};
struct ReleaseCommand {
  uint64_t request_id = 0;
};

// The outcome of one Work. Pictures come from rank 0 only.
struct WorkResult {
  uint64_t request_id = 0;
  WorkKind kind = WorkKind::kPrefill;
  int32_t index = 0;
  std::optional<RgbImage> preview;
  std::optional<RgbImage> image;  // kDecode
  double seconds = 0;             // wall time of this work on this rank
};

}  // namespace lancet
