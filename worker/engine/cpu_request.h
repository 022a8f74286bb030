// What the CPU keeps of one admitted request.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bf16.h"
#include "common/model_config.h"
#include "common/plan_rows.h"
#include "common/request_plan.h"
#include "common/tensor_view.h"
#include "worker/engine/denoise.h"
#include "worker/engine/model_runner.h"
#include "worker/model/kv_cache.h"

namespace lancet {

struct CpuRequest final : ModelRequest {
  // `request` outlives this. Caches are taken at once, for the whole of the request.
  CpuRequest(const RequestPlan& request, int64_t num_layers, int64_t kv_cols)
      : plan(request),
        layout(MakeCacheLayout(request)),
        shared(num_layers, layout.shared, kv_cols),
        conditional(num_layers, layout.conditional, kv_cols, &shared),
        unconditional(num_layers, layout.unconditional, kv_cols, &shared) {}

  MatrixView<bf16> latents_view() { return {latents.data(), plan.target.num_latents(), kLatentChannels}; }

  const RequestPlan& plan;
  const CacheLayout layout;
  KvCache shared;
  KvCache conditional;
  KvCache unconditional;        // used if layout.guided
  std::vector<float> times;     // TimestepSchedule
  MultistepSolver solver;       // Solver::kDpmpp2m
  std::vector<bf16> latents;    // [num_latents, 48], the sampler's state
  std::vector<bf16> features;   // [tokens, hidden]: of plan.vision_image
  std::vector<bf16> condition;  // [h * w, 48]: of plan.condition_image
  int32_t last_token = 0;       // of the answer, or of its prompt
};

}  // namespace lancet
