#include "worker/engine/request_run.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace lancet {
namespace {

// Far above any real request; a plan beyond it was made by a broken coordinator.
constexpr int32_t kMaxSteps = 10000;
constexpr int64_t kMaxPrefixTokens = int64_t{1} << 20;

absl::Status Bad(absl::string_view field, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("plan.", field, ": ", what));
}

absl::Status CheckPositions(absl::string_view field, const Positions& positions, int64_t count) {
  for (const auto* axis : {&positions.t, &positions.h, &positions.w}) {
    if (static_cast<int64_t>(axis->size()) != count) {
      return Bad(field, absl::StrCat(axis->size(), " positions for ", count, " rows"));
    }
    for (const int32_t id : *axis) {
      if (id < 0) return Bad(field, absl::StrCat("position ", id, " is negative"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckToken(absl::string_view field, int32_t id, const ModelConfig& config) {
  if (id < 0 || id >= config.vocab_size) {
    return Bad(field, absl::StrCat("token id ", id, " is outside the vocabulary of ", config.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status CheckImage(absl::string_view field, const RgbImage& image, int64_t multiple, int64_t limit) {
  if (image.width < 1 || image.height < 1 || image.width % multiple != 0 || image.height % multiple != 0) {
    return Bad(field,
               absl::StrCat(image.width, " x ", image.height, " pixels; expected multiples of ", multiple));
  }
  const int64_t pixels = int64_t{image.width} * image.height;
  if (static_cast<int64_t>(image.pixels.size()) != 3 * pixels) {
    return Bad(field, absl::StrCat(image.pixels.size(), " bytes for ", image.width, " x ", image.height));
  }
  if (pixels > limit) return Bad(field, absl::StrCat(pixels, " pixels; the limit is ", limit));
  return absl::OkStatus();
}

// Rows of a visual block without its markers.
int64_t NumCells(const RgbImage& image, int64_t cell_px) {
  return image.width / cell_px * (image.height / cell_px);
}

absl::Status CheckVisualBlock(const std::string& field, const PrefixBlock& block,
                              const std::optional<RgbImage>& image, int64_t cell_px) {
  if (!image.has_value()) return Bad(field, "needs a picture that the plan does not have");
  if (block.token_ids.size() != 2) {
    return Bad(field, absl::StrCat(block.token_ids.size(), " marker tokens; expected 2"));
  }
  const int64_t rows = NumCells(*image, cell_px) + 2;
  if (block.rows() != rows) {
    return Bad(field, absl::StrCat(block.rows(), " rows; the picture and its markers have ", rows));
  }
  return absl::OkStatus();
}

absl::Status CheckTarget(const TargetBlock& target, const ModelConfig& config, int64_t max_latents) {
  if (target.latent_height < 1 || target.latent_width < 1 || target.num_latents() > max_latents) {
    return Bad("target", absl::StrCat(target.latent_height, " x ", target.latent_width,
                                      " latents; at least 1 x 1 and at most ", max_latents, " in all"));
  }
  LANCET_RETURN_IF_ERROR(CheckToken("target.start_token_id", target.start_token_id, config));
  LANCET_RETURN_IF_ERROR(CheckToken("target.end_token_id", target.end_token_id, config));
  LANCET_RETURN_IF_ERROR(CheckPositions("target.conditional", target.conditional, target.num_latents() + 2));
  return CheckPositions("target.unconditional", target.unconditional, target.num_latents() + 2);
}

absl::Status CheckSampler(const SamplerParams& sampler) {
  if (sampler.num_steps < 1 || sampler.num_steps > kMaxSteps) {
    return Bad("sampler.num_steps", absl::StrCat(sampler.num_steps, " is outside 1 to ", kMaxSteps));
  }
  if (!std::isfinite(sampler.timestep_shift) || sampler.timestep_shift <= 0) {
    return Bad("sampler.timestep_shift", absl::StrCat(sampler.timestep_shift, " is not positive and finite"));
  }
  for (const float value : {sampler.guidance_scale, sampler.guidance_start, sampler.guidance_end}) {
    if (!std::isfinite(value)) return Bad("sampler.guidance", absl::StrCat(value, " is not finite"));
  }
  return absl::OkStatus();
}

absl::Status CheckAnswer(const AnswerParams& answer, const ModelConfig& config) {
  if (answer.max_new_tokens < 1 || answer.max_new_tokens > kMaxPrefixTokens) {
    return Bad("answer.max_new_tokens",
               absl::StrCat(answer.max_new_tokens, " is outside 1 to ", kMaxPrefixTokens));
  }
  if (!std::isfinite(answer.temperature) || answer.temperature < 0) {
    return Bad("answer.temperature", absl::StrCat(answer.temperature, " is not finite and at least 0"));
  }
  if (answer.first_position < 0 || answer.first_position > INT32_MAX - answer.max_new_tokens) {
    return Bad("answer.first_position", absl::StrCat(answer.first_position, " is negative or too large"));
  }
  if (answer.num_valid_tokens < 1 || answer.num_valid_tokens > config.vocab_size) {
    return Bad("answer.num_valid_tokens",
               absl::StrCat(answer.num_valid_tokens, " is outside 1 to ", config.vocab_size));
  }
  if (answer.first_index < 0 || answer.first_index > kMaxPrefixTokens) {
    return Bad("answer.first_index", absl::StrCat(answer.first_index, " is outside 0 to ", kMaxPrefixTokens));
  }
  LANCET_RETURN_IF_ERROR(CheckToken("answer.first_token_id", answer.first_token_id, config));
  return CheckToken("answer.stop_token_id", answer.stop_token_id, config);
}

// A snapshot's values may be anything: a sampler that ran into NaN goes on with NaN.
absl::Status CheckSnapshot(const RequestPlan& plan) {
  const LatentSnapshot& snapshot = *plan.snapshot;
  if (!plan.draws()) return Bad("snapshot", "given without a target");
  if (snapshot.step < 1 || snapshot.step > plan.sampler.num_steps) {
    return Bad("snapshot.step", absl::StrCat(snapshot.step, " is outside 1 to ", plan.sampler.num_steps));
  }
  const auto values = static_cast<size_t>(plan.target.num_latents() * kLatentChannels);
  if (snapshot.latents.size() != values) {
    return Bad("snapshot.latents", absl::StrCat(snapshot.latents.size(), " values; expected ", values));
  }
  const size_t kept = plan.sampler.solver == Solver::kDpmpp2m ? values : 0;
  if (snapshot.previous_clean.size() != kept) {
    return Bad("snapshot.previous_clean",
               absl::StrCat(snapshot.previous_clean.size(), " values; expected ", kept));
  }
  return absl::OkStatus();
}

absl::Status CheckPrefix(const RequestPlan& plan, const ModelConfig& config, const ModelLimits& limits) {
  const CacheLayout layout = MakeCacheLayout(plan);
  int64_t tokens = 0;
  for (size_t i = 0; i < plan.prefix.size(); ++i) {
    const PrefixBlock& block = plan.prefix[i];
    const std::string field = absl::StrCat("prefix[", i, "]");
    tokens += block.rows();
    if (block.token_ids.empty() || tokens > kMaxPrefixTokens) {
      return Bad(field, absl::StrCat("holds ", block.token_ids.size(), " tokens; at least 1 and at most ",
                                     kMaxPrefixTokens, " in all blocks"));
    }
    if (!block.conditional && !block.unconditional) return Bad(field, "belongs to no cache");
    for (const int32_t id : block.token_ids) LANCET_RETURN_IF_ERROR(CheckToken(field, id, config));
    int64_t rows = static_cast<int64_t>(block.token_ids.size());
    if (block.kind != PrefixKind::kText) {
      const bool vision = block.kind == PrefixKind::kVision;
      LANCET_RETURN_IF_ERROR(vision ? CheckVisualBlock(field, block, plan.vision_image, limits.cell_px)
                                    : CheckVisualBlock(field, block, plan.condition_image, kPixelsPerLatent));
      rows = block.rows();
      // Its rows see each other, so it goes through the trunk as a whole, for all of its caches.
      const Work whole{.kind = WorkKind::kPrefill, .index = static_cast<int32_t>(i)};
      if (const int64_t pass_rows = PassRows(plan, layout, whole); pass_rows > limits.max_rows) {
        return Bad(field, absl::StrCat(pass_rows, " rows; a pass has at most ", limits.max_rows));
      }
    }
    if (block.answered && (block.kind != PrefixKind::kText || !plan.answer.has_value())) {
      return Bad(field, "rows of an answer that are not text, or of a plan without an answer");
    }
    LANCET_RETURN_IF_ERROR(CheckPositions(field, block.positions, rows));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPlan(const RequestPlan& plan, const ModelConfig& config, const ModelLimits& limits) {
  if (plan.draws() == plan.answer.has_value()) {
    return Bad("target",
               plan.draws() ? "given together with an answer" : "has no latents, and there is no answer");
  }
  if (plan.draws()) {
    LANCET_RETURN_IF_ERROR(CheckTarget(plan.target, config, limits.max_latents));
    LANCET_RETURN_IF_ERROR(CheckSampler(plan.sampler));
  } else {
    if (limits.max_patches == 0) return Bad("answer", "this checkpoint has no vision tower");
    LANCET_RETURN_IF_ERROR(CheckAnswer(*plan.answer, config));
  }
  if (plan.snapshot.has_value()) LANCET_RETURN_IF_ERROR(CheckSnapshot(plan));
  if (plan.vision_image.has_value()) {
    if (limits.max_patches == 0) return Bad("vision_image", "this checkpoint has no vision tower");
    LANCET_RETURN_IF_ERROR(CheckImage("vision_image", *plan.vision_image, limits.cell_px,
                                      limits.max_patches * limits.patch_px * limits.patch_px));
  }
  if (plan.condition_image.has_value()) {
    LANCET_RETURN_IF_ERROR(CheckImage("condition_image", *plan.condition_image, kPixelsPerLatent,
                                      limits.max_latents * kPixelsPerLatent * kPixelsPerLatent));
  }
  return CheckPrefix(plan, config, limits);
}

absl::Status RequestRun::CheckPrefill(const Work& work) const {
  if (prefilled() || work.index != block_ || work.begin != row_) {
    return absl::InvalidArgumentError(absl::StrCat("prefill of block ", work.index, " from row ", work.begin,
                                                   "; row ", row_, " of block ", block_, " of ",
                                                   plan_.prefix.size(), " is next"));
  }
  const PrefixBlock& block = plan_.prefix[block_];
  const int64_t count = work.count > 0 ? work.count : block.rows() - work.begin;
  if (work.count < 0 || work.begin + count > block.rows() ||
      (block.kind != PrefixKind::kText && count != block.rows())) {
    return absl::InvalidArgumentError(absl::StrCat("prefill of ", work.count, " rows from row ", work.begin,
                                                   " of block ", work.index, ", which has ", block.rows()));
  }
  if ((block.kind == PrefixKind::kVision && !vision_done_) ||
      (block.kind == PrefixKind::kLatents && !latents_done_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill of block ", work.index, " before its picture was encoded"));
  }
  return absl::OkStatus();
}

absl::Status RequestRun::CheckNext(const Work& work) const {
  const auto refused = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(what, " ", work.index, " after ", block_, " of ",
                                                   plan_.prefix.size(), " blocks, ", steps_, " steps and ",
                                                   tokens_, " tokens"));
  };
  switch (work.kind) {
    case WorkKind::kPrefill:
      return CheckPrefill(work);
    case WorkKind::kEncodeVision:
      return plan_.vision_image.has_value() && !vision_done_ ? absl::OkStatus() : refused("vision");
    case WorkKind::kEncodeLatents:
      return plan_.condition_image.has_value() && !latents_done_ ? absl::OkStatus() : refused("condition");
    case WorkKind::kDenoise:
      return plan_.draws() && prefilled() && work.index == steps_ && steps_ < plan_.sampler.num_steps
                 ? absl::OkStatus()
                 : refused("step");
    case WorkKind::kDecode:
      return plan_.draws() && steps_ == plan_.sampler.num_steps && !decoded_ ? absl::OkStatus()
                                                                             : refused("decode");
    case WorkKind::kAnswer:
      // Beyond the last token there is nothing to do, and nothing wrong with being told so.
      return plan_.answer.has_value() && prefilled() &&
                     (work.index == tokens_ || (answered_ && work.index > 0))
                 ? absl::OkStatus()
                 : refused("token");
  }
  return refused("unknown work");
}

void RequestRun::Advance(const Work& work, const WorkResult& result) {
  switch (work.kind) {
    case WorkKind::kPrefill: {
      const int64_t rows = plan_.prefix[block_].rows();
      row_ = work.count > 0 ? row_ + work.count : static_cast<int32_t>(rows);
      if (row_ == rows) {
        row_ = 0;
        ++block_;
      }
      return;
    }
    case WorkKind::kEncodeVision:
      vision_done_ = true;
      return;
    case WorkKind::kEncodeLatents:
      latents_done_ = true;
      return;
    case WorkKind::kDenoise:
      ++steps_;
      return;
    case WorkKind::kDecode:
      decoded_ = true;
      return;
    case WorkKind::kAnswer:
      ++tokens_;
      if (result.token.has_value()) answered_ = result.token->last;
      return;
  }
}

}  // namespace lancet
