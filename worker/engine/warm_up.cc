#include "worker/engine/warm_up.h"

#include <algorithm>
#include <cmath>

namespace lancet {
namespace {

Positions SamePosition(int64_t rows, int32_t id) {
  const std::vector<int32_t> ids(rows, id);
  return {ids, ids, ids};
}

PrefixBlock Text(const ModelConfig& config, int32_t position) {
  PrefixBlock block;
  block.token_ids = {config.eos_token_id};
  block.positions = SamePosition(1, position);
  return block;
}

PrefixBlock Visual(const ModelConfig& config, PrefixKind kind, int64_t cells) {
  PrefixBlock block;
  block.kind = kind;
  block.token_ids = {config.vision_start_token_id, config.vision_end_token_id};
  block.positions = SamePosition(cells + 2, 1);
  return block;
}

RgbImage Grey(int64_t side) {
  return {static_cast<int32_t>(side), static_cast<int32_t>(side), std::vector<uint8_t>(side * side * 3, 128)};
}

RequestPlan DrawPlan(const ModelConfig& config, const ModelLimits& limits) {
  RequestPlan plan;
  const auto side =
      static_cast<int32_t>(std::min<int64_t>(4, std::sqrt(static_cast<double>(limits.max_latents))));
  plan.prefix.push_back(Text(config, 0));
  plan.prefix.push_back(Text(config, 1));
  plan.prefix.back().unconditional = false;
  plan.target.latent_height = side;
  plan.target.latent_width = side;
  plan.target.start_token_id = config.vision_start_token_id;
  plan.target.end_token_id = config.vision_end_token_id;
  plan.target.conditional = SamePosition(plan.target.num_latents() + 2, 2);
  plan.target.unconditional = plan.target.conditional;
  plan.sampler.num_steps = 1;
  return plan;
}

}  // namespace

std::vector<Work> AllWork(const RequestPlan& plan) {
  std::vector<Work> work;
  const auto add = [&](WorkKind kind, int32_t index) {
    work.push_back({.request_id = plan.request_id, .kind = kind, .index = index});
  };
  if (plan.vision_image.has_value()) add(WorkKind::kEncodeVision, 0);
  if (plan.condition_image.has_value()) add(WorkKind::kEncodeLatents, 0);
  for (size_t i = 0; i < plan.prefix.size(); ++i) add(WorkKind::kPrefill, static_cast<int32_t>(i));
  if (plan.answer.has_value()) {
    for (int32_t i = 0; i < plan.answer->max_new_tokens; ++i) add(WorkKind::kAnswer, i);
    return work;
  }
  const int32_t first_step = plan.snapshot.has_value() ? plan.snapshot->step : 0;
  for (int32_t step = first_step; step < plan.sampler.num_steps; ++step) add(WorkKind::kDenoise, step);
  add(WorkKind::kDecode, 0);
  return work;
}

std::vector<WarmUpRequest> WarmUpRequests(const ModelConfig& config, const ModelLimits& limits) {
  std::vector<RequestPlan> plans = {DrawPlan(config, limits)};
  if (limits.max_patches > 0) {
    RequestPlan edit = DrawPlan(config, limits);
    edit.vision_image = Grey(limits.cell_px);
    edit.condition_image = Grey(int64_t{edit.target.latent_width} * kPixelsPerLatent);
    edit.prefix.insert(edit.prefix.begin() + 1,
                       {Visual(config, PrefixKind::kVision, 1),
                        Visual(config, PrefixKind::kLatents, edit.target.num_latents())});
    plans.push_back(edit);

    RequestPlan answer;
    answer.vision_image = Grey(limits.cell_px);
    answer.prefix = {Text(config, 0), Visual(config, PrefixKind::kVision, 1)};
    answer.answer = AnswerParams{.max_new_tokens = 2,
                                 .first_token_id = config.eos_token_id,
                                 .first_position = 3,
                                 .stop_token_id = config.eos_token_id,
                                 .num_valid_tokens = static_cast<int32_t>(config.vocab_size)};
    plans.push_back(answer);
  }
  std::vector<WarmUpRequest> requests;
  for (size_t i = 0; i < plans.size(); ++i) {
    plans[i].request_id = i;
    requests.push_back({plans[i], AllWork(plans[i])});
  }
  return requests;
}

}  // namespace lancet
