#include "worker/engine/request_run.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/engine/denoise.h"

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

}  // namespace

absl::Status CheckPlan(const RequestPlan& plan, const ModelConfig& config, int64_t max_latents) {
  const TargetBlock& target = plan.target;
  if (target.latent_height < 1 || target.latent_width < 1 || target.num_latents() > max_latents) {
    return Bad("target", absl::StrCat(target.latent_height, " x ", target.latent_width,
                                      " latents; at least 1 x 1 and at most ", max_latents, " in all"));
  }
  LANCET_RETURN_IF_ERROR(CheckToken("target.start_token_id", target.start_token_id, config));
  LANCET_RETURN_IF_ERROR(CheckToken("target.end_token_id", target.end_token_id, config));
  LANCET_RETURN_IF_ERROR(CheckPositions("target.conditional", target.conditional, target.num_latents() + 2));
  LANCET_RETURN_IF_ERROR(
      CheckPositions("target.unconditional", target.unconditional, target.num_latents() + 2));
  int64_t tokens = 0;
  for (size_t i = 0; i < plan.prefix.size(); ++i) {
    const PrefixBlock& block = plan.prefix[i];
    const std::string field = absl::StrCat("prefix[", i, "]");
    tokens += static_cast<int64_t>(block.token_ids.size());
    if (block.token_ids.empty() || tokens > kMaxPrefixTokens) {
      return Bad(field, absl::StrCat("holds ", block.token_ids.size(), " tokens; at least 1 and at most ",
                                     kMaxPrefixTokens, " in all blocks"));
    }
    if (!block.conditional && !block.unconditional) return Bad(field, "belongs to no cache");
    for (const int32_t id : block.token_ids) LANCET_RETURN_IF_ERROR(CheckToken(field, id, config));
    LANCET_RETURN_IF_ERROR(
        CheckPositions(field, block.positions, static_cast<int64_t>(block.token_ids.size())));
  }
  const SamplerParams& sampler = plan.sampler;
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

RequestRun::RequestRun(RequestPlan request, int64_t num_layers, int64_t kv_cols, std::vector<bf16> noise)
    : plan(std::move(request)),
      times(TimestepSchedule(plan.sampler.num_steps, plan.sampler.timestep_shift)),
      latents(std::move(noise)) {
  bool any_guided = false;
  for (int32_t step = 0; step < plan.sampler.num_steps; ++step)
    any_guided |= IsGuided(plan.sampler, times[step]);
  int64_t conditional_tokens = 0;
  int64_t unconditional_tokens = 0;
  for (const PrefixBlock& block : plan.prefix) {
    const int64_t n = static_cast<int64_t>(block.token_ids.size());
    conditional_tokens += block.conditional ? n : 0;
    unconditional_tokens += block.unconditional ? n : 0;
  }
  conditional = std::make_unique<KvCache>(num_layers, conditional_tokens, kv_cols);
  if (any_guided) unconditional = std::make_unique<KvCache>(num_layers, unconditional_tokens, kv_cols);
}

}  // namespace lancet
