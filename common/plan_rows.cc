#include "common/plan_rows.h"

namespace lancet {

bool UsesGuidance(const SamplerParams& sampler) {
  return sampler.guidance_scale > 1 && sampler.guidance_start < sampler.guidance_end;
}

CacheLayout MakeCacheLayout(const RequestPlan& plan) {
  CacheLayout layout;
  layout.guided = plan.draws() && UsesGuidance(plan.sampler);
  layout.fork_block = static_cast<int32_t>(plan.prefix.size());
  for (int32_t i = 0; i < static_cast<int32_t>(plan.prefix.size()); ++i) {
    const PrefixBlock& block = plan.prefix[i];
    const bool own = !block.conditional || (layout.guided && !block.unconditional);
    if (own && i < layout.fork_block) layout.fork_block = i;
    if (i < layout.fork_block) {
      layout.shared += block.rows();
      continue;
    }
    if (block.conditional) layout.conditional += block.rows();
    if (block.unconditional && layout.guided) layout.unconditional += block.rows();
  }
  if (plan.answer.has_value()) layout.conditional += plan.answer->max_new_tokens;
  return layout;
}

int64_t PassRows(const RequestPlan& plan, const CacheLayout& layout, const Work& work) {
  switch (work.kind) {
    case WorkKind::kPrefill: {
      const PrefixBlock& block = plan.prefix[work.index];
      const int64_t rows = work.count > 0 ? work.count : block.rows() - work.begin;
      if (work.index < layout.fork_block) return rows;
      const int caches = (block.conditional ? 1 : 0) + (block.unconditional && layout.guided ? 1 : 0);
      return rows * caches;
    }
    case WorkKind::kDenoise:
      return (plan.target.num_latents() + 2) * (layout.guided ? 2 : 1);
    case WorkKind::kAnswer:
      return 1;
    case WorkKind::kDecode:
    case WorkKind::kEncodeVision:
    case WorkKind::kEncodeLatents:
      break;
  }
  return 0;
}

}  // namespace lancet
