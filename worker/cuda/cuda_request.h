// What a device keeps of one admitted request.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/bf16.h"
#include "common/plan_rows.h"
#include "common/request_plan.h"
#include "kernels/cuda/device_array.h"
#include "worker/cuda/cuda_kv_cache.h"
#include "worker/engine/model_runner.h"

namespace lancet {

struct CudaRequest final : ModelRequest {
  explicit CudaRequest(const RequestPlan& request) : plan(request), layout(MakeCacheLayout(request)) {}

  const RequestPlan& plan;  // outlives this
  const CacheLayout layout;

  // The part that both caches share is computed once, in the conditional one, and copied when they part.
  CudaKvCache conditional;
  CudaKvCache unconditional;
  bool forked = false;

  std::vector<float> times;     // TimestepSchedule
  DeviceArray<bf16> time_rows;  // [steps + 1, hidden]: the time embeddings of all steps, then of time 0
  DeviceArray<bf16> latents;    // [num_latents, 48], the sampler's state
  DeviceArray<float>
      clean;  // [num_latents, 48]: the estimate that previews show and the second-order solver keeps
  std::optional<float> previous_t;  // Solver::kDpmpp2m: where the step before started
  DeviceArray<bf16> features;       // [tokens, hidden]: of plan.vision_image
  DeviceArray<bf16> condition;      // [h * w, 48]: of plan.condition_image
  int32_t last_token = 0;           // of the answer, or of its prompt
};

}  // namespace lancet
