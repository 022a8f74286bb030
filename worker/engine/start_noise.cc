#include "worker/engine/start_noise.h"

#include <algorithm>

#include "absl/types/span.h"
#include "common/model_config.h"
#include "common/noise.h"

namespace lancet {
namespace {

int64_t ConditionValues(const RequestPlan& plan) {
  if (!plan.condition_image.has_value()) return 0;
  return int64_t{plan.condition_image->width / kPixelsPerLatent} *
         (plan.condition_image->height / kPixelsPerLatent) * kLatentChannels;
}

}  // namespace

std::vector<bf16> SeedNoise(const RequestPlan& plan) {
  const int64_t before = ConditionValues(plan);
  std::vector<float> normal(plan.target.num_latents() * kLatentChannels);
  FillNormalNoise(plan.seed, before + static_cast<int64_t>(normal.size()), before, absl::MakeSpan(normal));
  std::vector<bf16> noise(normal.size());
  std::transform(normal.begin(), normal.end(), noise.begin(), ToBf16);
  return noise;
}

std::vector<float> ConditionNoise(const RequestPlan& plan) {
  std::vector<float> noise;
  if (!plan.sample_condition) return noise;
  noise.resize(ConditionValues(plan));
  const int64_t target = plan.target.num_latents() * kLatentChannels;
  const int64_t first = target + static_cast<int64_t>(noise.size());
  std::vector<float> unused;
  const uint64_t offset = FillNormalNoise(plan.seed, 0, first, 0, absl::MakeSpan(unused));
  FillNormalNoise(plan.seed, offset, static_cast<int64_t>(noise.size()), 0, absl::MakeSpan(noise));
  return noise;
}

}  // namespace lancet
