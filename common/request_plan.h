// What crosses from coordinator to worker and back, as plain structs: the coordinator decides everything, the
// ranks execute. protos/convert.h maps these to lancet.v1 messages and checks them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/bf16.h"
#include "common/rgb_image.h"

namespace lancet {

// Rotary position ids of n tokens on the three M-RoPE axes. All three have the same length.
struct Positions {
  std::vector<int32_t> t;
  std::vector<int32_t> h;
  std::vector<int32_t> w;

  friend bool operator==(const Positions&, const Positions&) = default;
};

// What the rows of a prefix block are.
enum class PrefixKind : uint8_t {
  kText = 0,     // text tokens; a row sees those before it
  kVision = 1,   // start marker, the vision tower's features of RequestPlan::vision_image, end marker
  kLatents = 2,  // start marker, the latents of RequestPlan::condition_image at time 0, end marker
};

// A block that comes before the target or the answer. Its keys and values go to the conditional cache, the
// unconditional one, or both; with the same positions in either (the reference's cached behaviour). Rows of a
// visual block all see each other.
struct PrefixBlock {
  std::vector<int32_t> token_ids;  // kText: the run; else two: start and end marker
  Positions positions;             // one per row, markers included
  bool conditional = true;
  bool unconditional = true;
  PrefixKind kind = PrefixKind::kText;
  // kText only: what was fed for the tokens that an answer has already. A device computes these rows as it
  // would for kAnswer, to the bit.
  bool answered = false;

  int64_t rows() const { return static_cast<int64_t>(positions.t.size()); }
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

// How a step goes from the velocity to the next latents.
enum class Solver : uint8_t {
  kEuler = 0,    // the reference's, exact
  kDpmpp2m = 1,  // second order: fewer steps for the same picture
};

// Sampling with classifier-free guidance. Defaults are the model's published ones.
struct SamplerParams {
  int32_t num_steps = 30;
  float timestep_shift = 3.5f;
  float guidance_scale = 4.0f;  // guidance is off at <= 1
  float guidance_start = 0.4f;  // guided while start < t <= end
  float guidance_end = 1.0f;
  Solver solver = Solver::kEuler;
};

// How an answer is written, token by token, behind the prefix.
struct AnswerParams {
  int32_t max_new_tokens = 256;
  float temperature = 0;         // 0: the most likely token, the lowest id among equals
  int32_t first_token_id = 0;    // fed first: the last token of the prompt
  int32_t first_position = 0;    // its id on all three axes; each further token's is one more
  int32_t stop_token_id = 0;     // ends the answer
  int32_t num_valid_tokens = 0;  // ids from here on are never picked
  // Tokens that were picked before, which the prefix ends with (PrefixBlock::answered): the first one picked
  // here is drawn as number `first_index`.
  int32_t first_index = 0;

  friend bool operator==(const AnswerParams&, const AnswerParams&) = default;
};

// The sampler's state between two steps, exactly: a request that draws goes on from here as if nothing had
// happened, on any group of the same numerics.
struct LatentSnapshot {
  int32_t step = 0;                   // steps done, 1 to num_steps
  std::vector<bf16> latents;          // [num_latents, 48]
  std::vector<float> previous_clean;  // [num_latents, 48], of Solver::kDpmpp2m's last step; else empty

  friend bool operator==(const LatentSnapshot&, const LatentSnapshot&) = default;
};

// One request, complete: nothing else is needed to execute it. It ends either in a picture (`target` has
// latents) or in an answer (`answer` is set, `target` is empty).
struct RequestPlan {
  uint64_t request_id = 0;  // unique within an epoch of the group
  // What the vision tower sees, for blocks of kVision: sides are multiples of its merged patch.
  std::optional<RgbImage> vision_image;
  // What the autoencoder encodes, for blocks of kLatents: sides are multiples of kPixelsPerLatent.
  std::optional<RgbImage> condition_image;
  // Draw the condition's latents from the autoencoder's posterior (with noise of `seed`) instead of taking
  // its mean.
  bool sample_condition = false;
  std::vector<PrefixBlock> prefix;
  TargetBlock target;
  SamplerParams sampler;  // of the target
  std::optional<AnswerParams> answer;
  uint64_t seed = 42;
  // Go on from here instead of from the seed's noise. The prefix is prefilled all the same, unless only the
  // decode is left.
  std::optional<LatentSnapshot> snapshot{};
  std::string traceparent;  // of the request, for the ranks' logs; may be empty (trace_context.h)

  bool draws() const { return target.num_latents() > 0; }
};

enum class WorkKind : uint8_t {
  kPrefill = 0,        // run (a part of) prefix block `index` through the trunk and cache its keys and values
  kDenoise = 1,        // one step of the sampler, number `index`
  kDecode = 2,         // latents to pixels; the last work of a picture
  kEncodeVision = 3,   // vision_image to features; before the prefill of a kVision block
  kEncodeLatents = 4,  // condition_image to latents; before the prefill of a kLatents block
  kAnswer = 5,         // feed the last token and pick the next one, number `index`
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
  // kPrefill of text only: rows [begin, begin + count) of the block, in order and without gaps; count 0 means
  // the rest.
  int32_t begin = 0;
  int32_t count = 0;
  bool snapshot = false;  // kDenoise only: also return the state after the step
};

// A picked token. Work of kAnswer beyond the stop token does nothing and brings none.
struct AnswerToken {
  int32_t id = 0;
  bool last = false;  // the stop token, or the max_new_tokens-th

  friend bool operator==(const AnswerToken&, const AnswerToken&) = default;
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
  std::optional<RgbImage> image;     // kDecode
  std::optional<AnswerToken> token;  // kAnswer
  double seconds = 0;                // wall time of this work on this rank
  std::optional<LatentSnapshot> snapshot{};
};

}  // namespace lancet
